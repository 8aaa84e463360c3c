"""Checkpoints of StableLM: Llama's names and a norm per head."""

from tfm.zoo import stablelm
from tfm.zoo.weights import llama
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.tops import DECODER

NAMES: Names = {
  **llama.NAMES,
  '*/norm': 'model.layers.*.input_layernorm',
  '*/mixer/q_norm': 'model.layers.*.self_attn.q_layernorm.norms.*',
  '*/mixer/k_norm': 'model.layers.*.self_attn.k_layernorm.norms.*',
}

FAMILY = Family(
  'StableLm',
  stablelm.read,
  stablelm.write,
  NAMES,
  tops=DECODER,
  ignored=(r'rotary_emb\.inv_freq$',),
)
