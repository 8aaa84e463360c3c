"""RoBERTa, CamemBERT, XLM-R, I-BERT and data2vec: BERT whose positions begin behind that of padding
(2019-2022).
"""

import dataclasses
from typing import Any

from tfm.core import errors
from tfm.model.spec import Model
from tfm.parts.absolute.learned import Learned
from tfm.parts.act.gelu import Gelu
from tfm.parts.head.lm import Lm, Transform
from tfm.parts.norm.base import Norm
from tfm.zoo import bert
from tfm.zoo.entry import Entry
from tfm.zoo.fields import Fields

PAPER = 'RoBERTa: A Robustly Optimized BERT Pretraining Approach, arXiv:1907.11692'
PAPER_CAMEMBERT = 'CamemBERT: a Tasty French Language Model, arXiv:1911.03894'
PAPER_IBERT = 'I-BERT: Integer-only BERT Quantization, arXiv:2101.01321'
PAPER_DATA2VEC = 'data2vec: A General Framework for Self-supervised Learning, arXiv:2202.03555'
PAPER_XLM = 'Unsupervised Cross-lingual Representation Learning at Scale, arXiv:1911.02116'


def roberta(depth: int, d: int, heads: int, vocab: int = 50_265) -> Model:
  """BERT with one token type, byte-level BPE or SentencePiece, and 512 positions from 2 on."""
  return with_position_offset(bert.bert(depth, d, heads, vocab, types=1, eps=1e-5), 512, 1)


def with_position_offset(spec: Any, length: int, pad: int) -> Model:
  """A BERT of `length` positions that begin behind that of the padding token, with its head's own
  GELU.
  """
  return dataclasses.replace(
    spec, absolute=Learned(length, pad + 1), heads={**spec.heads, 'lm': gelu_head(spec.norm)}
  )


def gelu_head(norm: Norm) -> Lm:
  """The masked-LM head whose activation is erf GELU, whatever the layers' is."""
  return Lm(bias=True, transform=Transform(Gelu(), norm))


def read(c: Fields) -> Model:
  """The spec of a published config, of a masked language model."""
  pad = c.get('pad_token_id', 1)
  return with_position_offset(bert.read(c), c.get('max_position_embeddings', 512) - pad - 1, pad)


def read_ibert(c: Fields) -> Model:
  """Return the spec of an I-BERT config in floating point; `quant_mode` is refused."""
  c.only(quant_mode=False, hidden_act='gelu')
  c.skip('force_dequant')
  return read(c)


def write(m: Any) -> dict[str, Any]:
  """The published fields of a spec."""
  if (offset := m.absolute.offset) < 1:
    raise errors.UserError('roberta: positions begin at 0. Expected absolute.offset of at least 1.')
  return {
    **bert.write(m),
    'max_position_embeddings': m.max_positions + offset,
    'pad_token_id': offset - 1,
  }


MODELS = {
  'roberta-base': Entry(roberta(12, 768, 12), 124_697_433, '125M', PAPER),
  'roberta-large': Entry(roberta(24, 1024, 16), 355_412_057, '355M', PAPER),
  'camembert-base': Entry(roberta(12, 768, 12, 32_005), 110_655_493, '110M', PAPER_CAMEMBERT),
  'xlm-roberta-base': Entry(roberta(12, 768, 12, 250_002), 278_295_186, '270M', PAPER_XLM),
  'xlm-roberta-large': Entry(roberta(24, 1024, 16, 250_002), 560_142_482, '550M', PAPER_XLM),
  'ibert-roberta-base': Entry(roberta(12, 768, 12), 124_697_433, '125M', PAPER_IBERT),
  'ibert-roberta-large': Entry(roberta(24, 1024, 16), 355_412_057, '355M', PAPER_IBERT),
  'data2vec-text-base': Entry(roberta(12, 768, 12), 124_697_433, '125M', PAPER_DATA2VEC),
}
