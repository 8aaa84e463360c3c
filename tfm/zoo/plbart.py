"""PLBART (Ahmad et al., 2021): BART for programs and their descriptions."""

from tfm.model.spec import Model
from tfm.parts.absolute.learned import Learned
from tfm.parts.act.gelu import Gelu
from tfm.parts.embed.tokens import Tokens
from tfm.parts.residual_layout.post import Post
from tfm.zoo.bart import NORM, encoder_decoder_blocks, read_stacks, stacks
from tfm.zoo.entry import Entry
from tfm.zoo.fields import Fields

PAPER = 'Unified Pre-training for Program Understanding and Generation, arXiv:2103.06333'


def plbart(layers: int, d: int, heads: int, vocab: int) -> Model:
  """Return a BART with embeddings times sqrt(d) and dropout of the attention weights.

  Args:
    layers: number of layers of each stack.
    d: width of the residual stream.
    heads: number of attention heads.
    vocab: size of the vocabulary.

  Returns:
    The spec of the model.
  """
  blocks = encoder_decoder_blocks(heads, 4 * d, Gelu(), Post(), attention_dropout=0.1)
  return stacks(
    vocab, d, blocks, (layers, layers), Learned(1024, 2), Tokens(power=0.5, norm=NORM, dropout=0.1)
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  c.only(tie_word_embeddings=True)
  return read_stacks(
    c, Learned(c.get('max_position_embeddings', 1024), 2), Post(), NORM, scaled=True
  )


MODELS = {
  'plbart-base': Entry(plbart(6, 768, 12, 50_005), 139_270_741, '140M', PAPER),
  'plbart-large': Entry(plbart(12, 1024, 16, 50_005), 406_075_221, '406M', PAPER),
}
