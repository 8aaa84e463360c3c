"""Phi-3.5-MoE's checkpoints: Mixtral's names."""

from tfm.zoo import phimoe
from tfm.zoo.weights import mixtral
from tfm.zoo.weights.family import Family
from tfm.zoo.weights.rules import Whole
from tfm.zoo.weights.tops import DECODER

FAMILY = Family(
  'Phimoe', phimoe.read, phimoe.write, {**mixtral.NAMES, 'head/bias': Whole('lm_head.bias')}, tops={k: DECODER[k] for k in ('ForSequenceClassification',)},
)  # fmt: skip
