"""Checkpoints of Qwen2 mixtures."""

from tfm.zoo import qwen2_moe
from tfm.zoo.weights import llama
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.tops import DECODER

NAMES: Names = {
  **llama.NAMES,
  **llama.EXPERTS,
  '*/ffn/shared/gate': 'model.layers.*.mlp.shared_expert.gate_proj',
  '*/ffn/shared/up': 'model.layers.*.mlp.shared_expert.up_proj',
  '*/ffn/shared/down': 'model.layers.*.mlp.shared_expert.down_proj',
  '*/ffn/shared_gate': 'model.layers.*.mlp.shared_expert_gate',
}

FAMILY = Family('Qwen2Moe', qwen2_moe.read, qwen2_moe.write, NAMES, tops=DECODER)
