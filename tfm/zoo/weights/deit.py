"""Checkpoints of DeiT, with or without the classifier of the distillation token."""

import dataclasses

from tfm.model.spec import Model
from tfm.parts.head.classify import Classify
from tfm.zoo import deit
from tfm.zoo.fields import Fields
from tfm.zoo.weights import vit
from tfm.zoo.weights.family import Family, Names, Top
from tfm.zoo.weights.rules import Row, renamed

NAMES: Names = {
  **renamed(vit.NAMES, 'vit.', 'deit.'),
  'embed/distillation': Row('deit.embeddings.distillation_token', ones=2),
  'cls_head/out': 'cls_classifier',
  'distillation_head/out': 'distillation_classifier',
}


def _classifying(c: Fields, spec: Model) -> Model:
  return dataclasses.replace(spec, heads={'classify': Classify(c.labels)})


def _pooled(c: Fields, spec: Model) -> Model:
  return vit.pooled(c, dataclasses.replace(spec, heads={}))


TOPS = {'ForImageClassification': Top(_classifying), 'Model': Top(_pooled)}
FAMILY = Family(
  'DeiT', deit.read, deit.write, NAMES, 'deit.', 'ForImageClassificationWithTeacher', TOPS, (),
  (r'pooler\.dense\.',),
)  # fmt: skip
