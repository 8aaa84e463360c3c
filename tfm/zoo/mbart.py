"""mBART and mBART-50 (Liu et al., 2020; Tang et al., 2020): a multilingual pre-norm BART."""

from tfm.model.spec import Model
from tfm.parts.absolute.learned import Learned
from tfm.parts.act.gelu import Gelu
from tfm.parts.embed.tokens import Tokens
from tfm.parts.residual_layout.pre import Pre
from tfm.zoo.bart import NORM, encoder_decoder_blocks, read_stacks, stacks
from tfm.zoo.entry import Entry
from tfm.zoo.fields import Fields

PAPER = 'Multilingual Denoising Pre-training for Neural Machine Translation, arXiv:2001.08210'
PAPER_50 = (
  'Multilingual Translation with Extensible Multilingual Pretraining and Finetuning, '
  'arXiv:2008.00401'
)


def mbart(vocab: int) -> Model:
  """Return a large pre-norm BART with final norms and embeddings times sqrt(d)."""
  blocks = encoder_decoder_blocks(16, 4096, Gelu(), Pre())
  return stacks(
    vocab, 1024, blocks, (12, 12), Learned(1024, 2), Tokens(power=0.5, norm=NORM, dropout=0.1)
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  c.only(tie_word_embeddings=True)
  return read_stacks(c, Learned(c.get('max_position_embeddings', 1024), 2), Pre(), NORM)


MODELS = {
  'mbart-large': Entry(mbart(250_027), 611_101_867, '611M', PAPER),
  'mbart50-large': Entry(mbart(250_054), 611_129_542, '611M', PAPER_50),
}
