"""Checkpoints of Qwen3-Next: queries, keys, values and gates are fused per key head."""

from tfm.parts.mixer.gated_delta import GatedDelta
from tfm.zoo import qwen3_next
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.layers import layers_of
from tfm.zoo.weights import qwen2_moe
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import ByGroup, ByHead, Depthwise, Whole
from tfm.zoo.weights.tops import DECODER

_LAYER = 'model.layers.*'
_DELTA = f'{_LAYER}.linear_attn'

#: Gated attention, and the names that all checkpoints of Gated DeltaNet share.
MIXERS: Names = {
  ('*/mixer/q', '*/mixer/gate'): ByHead(f'{_LAYER}.self_attn.q_proj'),
  '*/gated_delta/conv': Depthwise(f'{_DELTA}.conv1d'),
  '*/gated_delta/start': Whole(f'{_DELTA}.A_log'),
  '*/gated_delta/shift': Whole(f'{_DELTA}.dt_bias'),
  '*/gated_delta/norm': f'{_DELTA}.norm',
  '*/gated_delta/o': f'{_DELTA}.out_proj',
}


def names(m: FamilyModel) -> Names:
  """Return the names of a spec."""
  K = next((b.mixer.key_heads for b in layers_of(m) if isinstance(b.mixer, GatedDelta)), 1)
  projections = tuple(f'*/gated_delta/{name}' for name in ('q', 'k', 'v', 'gate'))
  rates = '*/gated_delta/rate', '*/gated_delta/decay'
  fused: Names = {
    projections: ByGroup(f'{_DELTA}.in_proj_qkvz', groups=K),
    rates: ByGroup(f'{_DELTA}.in_proj_ba', groups=K),
  }
  return {**qwen2_moe.NAMES, **MIXERS, **fused}


FAMILY = Family(
  'Qwen3Next', qwen3_next.read, qwen3_next.write, names, tops=DECODER, ignored=(r'^mtp\.',)
)
