"""Checkpoints of Phi-3.5-MoE: Mixtral's names."""

from tfm.zoo import phimoe
from tfm.zoo.weights import mixtral
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import Whole
from tfm.zoo.weights.tops import DECODER

NAMES: Names = {**mixtral.NAMES, 'head/bias': Whole('lm_head.bias')}
_LAST = 'ForSequenceClassification'

FAMILY = Family('Phimoe', phimoe.read, phimoe.write, NAMES, tops={_LAST: DECODER[_LAST]})
