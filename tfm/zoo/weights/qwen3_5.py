"""Checkpoints of the Qwen3.5 text model."""

from tfm.zoo import qwen3_5
from tfm.zoo.weights import qwen2_moe, qwen3_next
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import Fused

_DELTA = 'model.layers.*.linear_attn'

NAMES: Names = {
  **qwen2_moe.NAMES,
  **qwen3_next.MIXERS,
  ('*/gated_delta/q', '*/gated_delta/k', '*/gated_delta/v'): Fused(f'{_DELTA}.in_proj_qkv'),
  '*/gated_delta/gate': f'{_DELTA}.in_proj_z',
  '*/gated_delta/rate': f'{_DELTA}.in_proj_b',
  '*/gated_delta/decay': f'{_DELTA}.in_proj_a',
}
_AHEAD = (r'^mtp\.',)

FAMILY = Family('Qwen3_5', qwen3_5.read, qwen3_5.write, NAMES, ignored=_AHEAD, body='TextModel')
MOE = Family(
  'Qwen3_5Moe', qwen3_5.read_moe, qwen3_5.write_moe, NAMES, ignored=_AHEAD, body='TextModel'
)
