"""Checkpoints of XGLM: the names of BART's decoder, without their prefix."""

from tfm.zoo import xglm
from tfm.zoo.weights import opt
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import renamed

NAMES: Names = {**renamed(opt.NAMES, 'model.decoder.', 'model.'), 'norm': 'model.layer_norm'}

FAMILY = Family('XGLM', xglm.read, xglm.write, NAMES, ignored=(r'embed_positions\.weights$',))
