"""PEGASUS (Zhang et al., 2019): a pre-norm encoder-decoder for summarization."""

from tfm.model.spec import Model
from tfm.parts.absolute.sinusoidal import Sinusoidal
from tfm.parts.act.relu import Relu
from tfm.parts.embed.tokens import Tokens
from tfm.parts.residual_layout.pre import Pre
from tfm.zoo.bart import encoder_decoder_blocks, read_stacks, stacks
from tfm.zoo.entry import Entry
from tfm.zoo.fields import Fields

PAPER = (
  'PEGASUS: Pre-training with Extracted Gap-sentences for Abstractive Summarization, '
  'arXiv:1912.08777'
)


def pegasus(layers: int, d: int, heads: int) -> Model:
  """Return a pre-norm encoder-decoder with sinusoids, ReLU and a final norm in each stack.

  Args:
    layers: number of layers of each stack.
    d: width of the residual stream.
    heads: number of attention heads.

  Returns:
    The spec of the model.
  """
  blocks = encoder_decoder_blocks(heads, 4 * d, Relu(), Pre())
  positions = Sinusoidal('halves', max_len=1024)
  return stacks(96_103, d, blocks, (layers, layers), positions, Tokens(power=0.5, dropout=0.1))


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  c.only(tie_word_embeddings=True)
  return read_stacks(c, Sinusoidal('halves', max_len=c.get('max_position_embeddings', 1024)), Pre())


MODELS = {'pegasus-large': Entry(pegasus(16, 1024, 16), 568_796_007, '568M', PAPER)}
