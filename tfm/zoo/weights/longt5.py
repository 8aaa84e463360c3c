"""LongT5's checkpoints: T5's names, but for the encoder's attention."""

from typing import Any

from tfm.zoo import longt5
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.t5 import IDLE, TIED, TOPS
from tfm.zoo.weights.t5 import names as t5_names


def names(m: Any) -> Names:
  """T5's names."""
  return t5_names(m, 'LocalSelfAttention')


FAMILY = Family(
  'LongT5', longt5.read, longt5.write, names, '', 'ForConditionalGeneration',
  {'EncoderModel': TOPS['EncoderModel']}, TIED, IDLE,
)  # fmt: skip
