"""Checkpoints of BioGPT: OPT's names."""

from tfm.zoo import biogpt
from tfm.zoo.weights import opt
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import renamed
from tfm.zoo.weights.tops import DECODER

NAMES: Names = {
  **renamed(opt.NAMES, 'model.decoder.', 'biogpt.'), 'norm': 'biogpt.layer_norm',
  'head/head': 'output_projection',
}  # fmt: skip
TOPS = {'ForSequenceClassification': DECODER['ForSequenceClassification']}
FAMILY = Family(
  'BioGpt', biogpt.read, biogpt.write, NAMES, 'biogpt.', tops=TOPS,
  tied=('output_projection.weight',),
)  # fmt: skip
