"""Checkpoints of Mixtral: Llama's names, with `w1` (gate), `w2` (down), `w3` (up) per expert."""

from tfm.zoo import mixtral
from tfm.zoo.weights import llama
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.tops import DECODER

NAMES: Names = {
  **llama.NAMES,
  '*/ffn/router/score': 'model.layers.*.block_sparse_moe.gate',
  '*/ffn/expert/gate': 'model.layers.*.block_sparse_moe.experts.*.w1',
  '*/ffn/expert/down': 'model.layers.*.block_sparse_moe.experts.*.w2',
  '*/ffn/expert/up': 'model.layers.*.block_sparse_moe.experts.*.w3',
}

FAMILY = Family('Mixtral', mixtral.read, mixtral.write, NAMES, tops=DECODER)
