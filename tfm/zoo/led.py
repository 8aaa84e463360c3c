"""LED: BART whose encoder attends to near tokens and to global ones (2020)."""

from collections.abc import Sequence
import dataclasses
from typing import Any

from tfm.model.spec import Model
from tfm.parts.absolute.learned import Learned
from tfm.parts.act.gelu import Gelu
from tfm.parts.embed.tokens import Tokens
from tfm.parts.residual_layout.post import Post
from tfm.zoo.bart import NORM, encoder_decoder_blocks, read_stacks, stacks, write_stacks
from tfm.zoo.entry import Entry
from tfm.zoo.fields import Fields
from tfm.zoo.longformer import PAPER, read_windows, with_windows, write_windows


def led(layers: int, d: int, heads: int, window: int = 1024) -> Model:
  """BART with positions from row 0 on, 16,384 of them in the encoder, which attends to window / 2
  tokens each way.
  """
  blocks = encoder_decoder_blocks(heads, 4 * d, Gelu(), Post())
  spec = stacks(50_265, d, blocks, (layers, layers), Learned(1024), Tokens(norm=NORM, dropout=0.1))
  return with_encoder_windows(spec, [window] * layers, 16_384)


def with_encoder_windows(spec: Any, windows: Sequence[int], length: int) -> Model:
  """Return an encoder-decoder whose encoder has these windows, one for each layer, and so many
  positions.
  """
  encoder = dataclasses.replace(with_windows(spec.encoder, windows), absolute=Learned(length))
  return spec.with_towers(encoder=encoder)


def read(c: Fields) -> Model:
  """Return the spec of a published config."""
  c.only(tie_word_embeddings=True, scale_embedding=False)
  spec = read_stacks(c, Learned(c.get('max_decoder_position_embeddings', 1024)), Post(), NORM)
  windows = read_windows(c, c['encoder_layers'])
  return with_encoder_windows(spec, windows, c.get('max_encoder_position_embeddings', 16_384))


def write(m: Any) -> dict[str, Any]:
  """Return the published fields of a spec."""
  fields = write_stacks(m)
  del fields['max_position_embeddings'], fields['scale_embedding']
  return {
    **fields, 'max_encoder_position_embeddings': m.encoder.absolute.max_len,
    'max_decoder_position_embeddings': m.absolute.max_len,
    **write_windows(m.encoder),
  }  # fmt: skip


MODELS = {
  'led-base-16384': Entry(led(6, 768, 12), 161_894_745, '162M', PAPER),
  'led-large-16384': Entry(led(12, 1024, 16), 459_851_865, '460M', PAPER),
}
