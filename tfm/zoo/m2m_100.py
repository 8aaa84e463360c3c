"""M2M-100 (Fan et al., 2020) and NLLB-200 (2022): multilingual translation models."""

from typing import Any

from tfm.model.spec import Model
from tfm.parts.absolute.sinusoidal import Sinusoidal
from tfm.parts.act.relu import Relu
from tfm.parts.embed.tokens import Tokens
from tfm.parts.head.lm import Lm
from tfm.parts.residual_layout.pre import Pre
from tfm.zoo.bart import encoder_decoder_blocks, read_stacks, stacks, write_stacks
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields

PAPER = 'Beyond English-Centric Multilingual Machine Translation, arXiv:2010.11125'
PAPER_NLLB = 'No Language Left Behind: Scaling Human-Centered Machine Translation, arXiv:2207.04672'


def m2m_100(vocab: int, layers: int, d: int, d_ff: int) -> Model:
  """Return a pre-norm encoder-decoder with tensor2tensor's sinusoids and ReLU.

  Args:
    vocab: size of the vocabulary.
    layers: number of layers of each stack.
    d: width of the residual stream.
    d_ff: hidden width of the feed-forward.

  Returns:
    The spec of the model.
  """
  blocks = encoder_decoder_blocks(16, d_ff, Relu(), Pre(), attention_dropout=0.1)
  embed = Tokens(power=0.5, dropout=0.1)
  return stacks(vocab, d, blocks, (layers, layers), Sinusoidal('t2t', offset=2), embed, Lm())


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`.

  The first token has position `pad_token_id` + 1.
  """
  c.only(tie_word_embeddings=True)
  positions = Sinusoidal('t2t', offset=c.get('pad_token_id', 1) + 1)
  return read_stacks(c, positions, Pre(), act='relu', scaled=True, head=Lm())


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  return {**write_stacks(m), 'pad_token_id': m.absolute.offset - 1}


MODELS = {
  'm2m100-418m': Entry(m2m_100(128_112, 12, 1024, 4096), 483_905_536, '484M', PAPER),
  'm2m100-1.2b': Entry(m2m_100(128_112, 24, 1024, 8192), 1_239_470_080, '1.2B', PAPER),
  'nllb200-600m': Entry(m2m_100(256_206, 12, 1024, 4096), 615_073_792, '600M', PAPER_NLLB),
  'nllb200-3.3b': Entry(m2m_100(256_206, 24, 2048, 8192), 3_344_863_232, '3.3B', PAPER_NLLB),
}
