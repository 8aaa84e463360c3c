"""Checkpoints of Persimmon: q, k and v are fused per head."""

from tfm.zoo import persimmon
from tfm.zoo.weights import llama
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import FusedHeads
from tfm.zoo.weights.tops import DECODER

_LAYER = 'model.layers.*'
NAMES: Names = {
  **{
    path: name
    for path, name in llama.NAMES.items()
    if path not in ('*/mixer/q', '*/mixer/k', '*/mixer/v')
  },
  ('*/mixer/q', '*/mixer/k', '*/mixer/v'): FusedHeads(f'{_LAYER}.self_attn.query_key_value'),
  '*/mixer/o': f'{_LAYER}.self_attn.dense',
  '*/mixer/q_norm': f'{_LAYER}.self_attn.q_layernorm',
  '*/mixer/k_norm': f'{_LAYER}.self_attn.k_layernorm',
  '*/ffn/up': f'{_LAYER}.mlp.dense_h_to_4h',
  '*/ffn/down': f'{_LAYER}.mlp.dense_4h_to_h',
  'norm': 'model.final_layernorm',
}

FAMILY = Family('Persimmon', persimmon.read, persimmon.write, NAMES, tops=DECODER)
