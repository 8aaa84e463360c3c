"""PEGASUS (2019)."""

from tfm.model.spec import Model
from tfm.parts.absolute.sinusoidal import Sinusoidal
from tfm.parts.act.relu import Relu
from tfm.parts.embed.tokens import Tokens
from tfm.parts.residual_layout.pre import Pre
from tfm.zoo.bart import encoder_decoder_blocks, read_stacks, stacks
from tfm.zoo.entry import Entry
from tfm.zoo.fields import Fields

PAPER = 'PEGASUS: Pre-training with Extracted Gap-sentences for Abstractive Summarization, arXiv:1912.08777'


def pegasus(layers: int, d: int, heads: int) -> Model:
  """BART's blocks with norms before the branches and at the end of each stack, fixed sinusoids,
  ReLU.
  """
  blocks = encoder_decoder_blocks(heads, 4 * d, Relu(), Pre())
  positions = Sinusoidal('halves', max_len=1024)
  return stacks(96_103, d, blocks, (layers, layers), positions, Tokens(power=0.5, dropout=0.1))


def read(c: Fields) -> Model:
  """The spec of a published config."""
  c.only(tie_word_embeddings=True)
  return read_stacks(c, Sinusoidal('halves', max_len=c.get('max_position_embeddings', 1024)), Pre())


MODELS = {'pegasus-large': Entry(pegasus(16, 1024, 16), 568_796_007, '568M', PAPER)}
