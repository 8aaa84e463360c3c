"""LED (Beltagy et al., 2020): BART with Longformer's local and global attention in the encoder."""

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
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields
from tfm.zoo.longformer import PAPER, read_windows, with_windows, write_windows


def led(layers: int, d: int, heads: int, window: int = 1024) -> Model:
  """Return a BART with 16,384 encoder positions and windowed encoder attention.

  Args:
    layers: number of layers of each stack.
    d: width of the residual stream.
    heads: number of attention heads.
    window: number of tokens that the encoder attends to, half on each side.

  Returns:
    The spec of the model.
  """
  blocks = encoder_decoder_blocks(heads, 4 * d, Gelu(), Post())
  spec = stacks(50_265, d, blocks, (layers, layers), Learned(1024), Tokens(norm=NORM, dropout=0.1))
  return with_encoder_windows(spec, [window] * layers, 16_384)


def with_encoder_windows(spec: Model, windows: Sequence[int], length: int) -> Model:
  """Return an encoder-decoder with windowed encoder attention.

  Args:
    spec: an encoder-decoder.
    windows: window of each encoder layer.
    length: number of encoder positions.

  Returns:
    The spec with these windows.
  """
  encoder = dataclasses.replace(with_windows(spec.encoder, windows), absolute=Learned(length))
  return spec.with_towers(encoder=encoder)


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  c.only(tie_word_embeddings=True, scale_embedding=False)
  spec = read_stacks(c, Learned(c.get('max_decoder_position_embeddings', 1024)), Post(), NORM)
  windows = read_windows(c, c['encoder_layers'])
  return with_encoder_windows(spec, windows, c.get('max_encoder_position_embeddings', 16_384))


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
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
