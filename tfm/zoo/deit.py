"""DeiT (Touvron et al., 2020): a vision transformer with a distillation token."""

import dataclasses
from typing import Any

from tfm.model.spec import Model
from tfm.parts.head.average import Average
from tfm.parts.head.classify import Classify
from tfm.zoo import vit
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields

PAPER = (
  'Training data-efficient image transformers & distillation through attention, arXiv:2012.12877'
)


def deit(d: int, heads: int, labels: int = 1000) -> Model:
  """Return a ViT with classifiers of the class token and of the distillation token.

  Args:
    d: width of the residual stream.
    heads: number of attention heads.
    labels: number of classes.

  Returns:
    The spec of the model.
  """
  return with_teacher(vit.vit(12, d, heads, distilled=True), labels)


def with_teacher(m: Model, labels: int) -> Model:
  """Return `m` with a classifier for each special token.

  The output `logits` is the mean of both.
  """
  heads = {
    'cls': Classify(labels, 'first', name='cls_logits'),
    'distillation': Classify(labels, 'second', name='distillation_logits'),
    'average': Average(),
  }
  return dataclasses.replace(m, heads=heads)


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  return with_teacher(vit.read(c, distilled=True), c.labels)


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  head = m.heads.get('cls')
  if head is None:
    return vit.write(m)
  return {**vit.write(m), 'id2label': {str(i): f'LABEL_{i}' for i in range(head.labels)}}


MODELS = {
  'deit-tiny': Entry(deit(192, 3), 5_910_800, '6M', PAPER),
  'deit-small': Entry(deit(384, 6), 22_436_432, '22M', PAPER),
  'deit-base': Entry(deit(768, 12), 87_338_192, '87M', PAPER),
}
