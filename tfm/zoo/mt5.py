"""mT5 (Xue et al., 2020): T5 v1.1 with a multilingual vocabulary."""

import dataclasses
from typing import Any

from tfm.model.spec import Model
from tfm.parts.head.lm import Lm
from tfm.zoo.entry import Entry
from tfm.zoo.fields import Fields
from tfm.zoo.t5 import read_stacks, t5_v1_1

PAPER = 'mT5: A massively multilingual pre-trained text-to-text transformer, arXiv:2010.11934'


def mt5(layers: int, d: int, heads: int, d_ff: int) -> Model:
  """Return a T5 v1.1 with a vocabulary for a hundred languages.

  Args:
    layers: number of layers of each stack.
    d: width of the residual stream.
    heads: number of attention heads.
    d_ff: hidden width of the feed-forward.

  Returns:
    The spec of the model.
  """
  m: Any = t5_v1_1(layers, d, heads, d_ff)
  return dataclasses.replace(m, embed=dataclasses.replace(m.embed, vocab=250_112))


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`; logits are not scaled, tied head or not."""
  return read_stacks(c, Lm(tied=c.get('tie_word_embeddings', True)), 'gated-gelu')


MODELS = {
  'mt5-small': Entry(mt5(8, 512, 6, 1024), 300_176_768, '300M', PAPER),
  'mt5-base': Entry(mt5(12, 768, 12, 2048), 582_401_280, '582M', PAPER),
  'mt5-large': Entry(mt5(24, 1024, 16, 2816), 1_229_581_312, '1.2B', PAPER),
  'mt5-xl': Entry(mt5(24, 2048, 32, 5120), 3_742_619_648, '3.7B', PAPER),
  'mt5-xxl': Entry(mt5(24, 4096, 64, 10_240), 12_921_057_280, '13B', PAPER),
}
