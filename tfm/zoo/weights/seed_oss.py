"""Checkpoints of Seed-OSS: Llama's names."""

from tfm.zoo import seed_oss
from tfm.zoo.weights.family import Family
from tfm.zoo.weights.llama import NAMES
from tfm.zoo.weights.tops import DECODER

FAMILY = Family('SeedOss', seed_oss.read, seed_oss.write, NAMES, tops=DECODER)
