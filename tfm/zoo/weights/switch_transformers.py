"""Checkpoints of Switch Transformers: T5's names, except feed-forwards."""

from tfm.zoo import switch_transformers as switch
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.t5 import IGNORED, TIED
from tfm.zoo.weights.t5 import names as t5_names


def names(m: FamilyModel) -> Names:
  """Return T5's names, with Switch's name of the feed-forward."""
  return t5_names(m, ffn='mlp')


FAMILY = Family(
  'SwitchTransformers', switch.read, switch.write, names, '', 'ForConditionalGeneration', tied=TIED,
  ignored=IGNORED,
)  # fmt: skip
