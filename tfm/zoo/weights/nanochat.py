"""Checkpoints of nanochat: Llama's names; queries and keys are rotated in reverse."""

from tfm.zoo import nanochat
from tfm.zoo.weights import llama
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import SwappedHalves

_LAYER = 'model.layers.*'
NAMES: Names = {
  **llama.NAMES,
  # Swapped halves turn the reversed rotation into the standard one.
  '*/mixer/q': SwappedHalves(f'{_LAYER}.self_attn.q_proj'),
  '*/mixer/k': SwappedHalves(f'{_LAYER}.self_attn.k_proj'),
  '*/ffn/up': f'{_LAYER}.mlp.fc1',
  '*/ffn/down': f'{_LAYER}.mlp.fc2',
}

FAMILY = Family('NanoChat', nanochat.read, nanochat.write, NAMES)
