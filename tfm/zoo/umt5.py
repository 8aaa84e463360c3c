"""UMT5 (Chung et al., 2023): mT5 with relative position buckets in every layer."""

import dataclasses
from typing import Any

from tfm.model.spec import Block, Model
from tfm.parts.head.lm import Lm
from tfm.parts.relative.base import Relative
from tfm.zoo import t5
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel, FamilyTower
from tfm.zoo.fields import Fields
from tfm.zoo.layers import layers_of, segments
from tfm.zoo.mt5 import mt5

PAPER = (
  'UniMax: Fairer and more Effective Language Sampling for Large-Scale Multilingual '
  'Pretraining, arXiv:2304.09151'
)


def umt5(layers: int, d: int, heads: int, d_ff: int) -> Model:
  """Return an mT5 with a vocabulary of 256,384 and a bucket table per layer.

  Args:
    layers: number of layers of each stack.
    d: width of the residual stream.
    heads: number of attention heads.
    d_ff: hidden width of the feed-forward.

  Returns:
    The spec of the model.
  """
  m: Any = unshared_relative(mt5(layers, d, heads, d_ff))
  return dataclasses.replace(m, embed=dataclasses.replace(m.embed, vocab=256_384))


def unshared_relative(m: Model) -> Model:
  """Return `m` with a separate relative position table in each layer."""
  assert m.encoder is not None
  return _unshared(m).with_towers(encoder=_unshared(m.encoder))


def _unshared(stack: FamilyTower) -> Any:
  unshared = lambda b: dataclasses.replace(
    b, mixer=dataclasses.replace(b.mixer, relative=stack.shared_relative)
  )
  layers: list[Block] = [unshared(b) for b in layers_of(stack)]
  return dataclasses.replace(stack, segments=segments(layers), shared_relative=Relative())


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`; logits are scaled only if the head is tied."""
  c.skip('scalable_attention')
  tied = c.get('tie_word_embeddings', True)
  return unshared_relative(t5.read_stacks(c, Lm(tied, power=-0.5 if tied else 0.0), 'gated-gelu'))


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  return t5.write_stacks(
    dataclasses.replace(m, shared_relative=m.segments[0].pattern[0].mixer.relative)
  )


MODELS = {
  'umt5-small': Entry(umt5(8, 512, 6, 1024), 306_601_984, '308M', PAPER),
  'umt5-base': Entry(umt5(12, 768, 12, 2048), 592_043_520, '592M', PAPER),
  'umt5-xxl': Entry(umt5(24, 4096, 64, 10_240), 12_972_531_712, '13B', PAPER),
}
