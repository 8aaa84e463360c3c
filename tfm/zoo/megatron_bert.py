"""Megatron-BERT (Shoeybi et al., 2019): a pre-norm BERT."""

import dataclasses
from typing import Any

from tfm.model.spec import Model
from tfm.parts.residual_layout.pre import Pre
from tfm.zoo import bert
from tfm.zoo.entry import Entry
from tfm.zoo.fields import Fields

PAPER = (
  'Megatron-LM: Training Multi-Billion Parameter Language Models Using Model Parallelism, '
  'arXiv:1909.08053'
)


def megatron_bert(layers: int, d: int, heads: int, vocab: int) -> Model:
  """Return a pre-norm BERT with a final norm and unnormalised embeddings.

  Args:
    layers: number of layers of each stack.
    d: width of the residual stream.
    heads: number of attention heads.
    vocab: size of the vocabulary.

  Returns:
    The spec of the model.
  """
  return pre_norm(bert.bert(layers, d, heads, vocab))


def pre_norm(spec: Any, embed_norm: bool = False) -> Model:
  """Return a pre-norm BERT with a final norm.

  Args:
    spec: a BERT.
    embed_norm: whether to keep the norm of the embeddings.

  Returns:
    The pre-norm spec.
  """
  (block,) = spec.segments[0].pattern
  segment = dataclasses.replace(
    spec.segments[0], pattern=(dataclasses.replace(block, residual_layout=Pre()),)
  )
  embed = spec.embed if embed_norm else dataclasses.replace(spec.embed, norm=None)
  return dataclasses.replace(spec, segments=(segment,), embed=embed)


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`, with a masked-LM head."""
  return pre_norm(bert.read(c))


MODELS = {
  'megatron-bert-345m': Entry(megatron_bert(24, 1024, 16, 29_056), 333_671_808, '345M', PAPER)
}
