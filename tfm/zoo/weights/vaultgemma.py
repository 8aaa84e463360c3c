"""Checkpoints of VaultGemma: Llama's names, except the norm before the feed-forward."""

from tfm.zoo import vaultgemma
from tfm.zoo.weights import llama
from tfm.zoo.weights.family import Family, Names

NAMES: Names = {**llama.NAMES, '*/ffn_norm': 'model.layers.*.pre_feedforward_layernorm'}

FAMILY = Family('VaultGemma', vaultgemma.read, vaultgemma.write, NAMES)
