"""RoBERTa and relatives (2019-2022): BERT with positions after the padding id.

The relatives are CamemBERT, XLM-R, I-BERT and data2vec.
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
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields

PAPER = 'RoBERTa: A Robustly Optimized BERT Pretraining Approach, arXiv:1907.11692'
PAPER_CAMEMBERT = 'CamemBERT: a Tasty French Language Model, arXiv:1911.03894'
PAPER_IBERT = 'I-BERT: Integer-only BERT Quantization, arXiv:2101.01321'
PAPER_DATA2VEC = 'data2vec: A General Framework for Self-supervised Learning, arXiv:2202.03555'
PAPER_XLM = 'Unsupervised Cross-lingual Representation Learning at Scale, arXiv:1911.02116'


def roberta(depth: int, d: int, heads: int, vocab: int = 50_265) -> Model:
  """Return a BERT with one token type and 512 positions that start at row 2.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    vocab: size of the vocabulary.

  Returns:
    The spec of the model.
  """
  return with_position_offset(bert.bert(depth, d, heads, vocab, types=1, eps=1e-5), 512, 1)


def with_position_offset(spec: Any, length: int, pad: int) -> Model:
  """Return a BERT with positions after the padding id, with erf GELU in its head.

  Args:
    spec: spec of the model.
    length: number of positions.
    pad: id of the padding token.

  Returns:
    The spec of the model.
  """
  return dataclasses.replace(
    spec, absolute=Learned(length, pad + 1), heads={**spec.heads, 'lm': gelu_head(spec.norm)}
  )


def gelu_head(norm: Norm) -> Lm:
  """Return a masked-LM head with erf GELU."""
  return Lm(bias=True, transform=Transform(Gelu(), norm))


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`, with a masked-LM head."""
  pad = c.get('pad_token_id', 1)
  return with_position_offset(bert.read(c), c.get('max_position_embeddings', 512) - pad - 1, pad)


def read_ibert(c: Fields) -> Model:
  """Return the spec of a published `config.json` of I-BERT, in floating point.

  Configs with `quant_mode` are an error.
  """
  c.only(quant_mode=False, hidden_act='gelu')
  c.skip('force_dequant')
  return read(c)


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  if (offset := m.absolute.offset) < 1:
    raise errors.UserError(f'export: absolute.offset is {offset}. Expected at least 1 for RoBERTa.')
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
