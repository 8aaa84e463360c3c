"""DeepSeek-V2's and V3's checkpoints."""

from typing import Any

from tfm.zoo import deepseek
from tfm.zoo.weights import llama
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import ByHead, Fused, Whole
from tfm.zoo.weights.tops import DECODER

_LAYER = 'model.layers.*'

#: Queries come from `q_proj`, or from a latent.
STRAIGHT: Names = {
  **llama.NAMES,
  **llama.EXPERTS,
  '*/ffn/router/bias': Whole(f'{_LAYER}.mlp.gate.e_score_correction_bias'),
  '*/ffn/shared/gate': f'{_LAYER}.mlp.shared_experts.gate_proj',
  '*/ffn/shared/up': f'{_LAYER}.mlp.shared_experts.up_proj',
  '*/ffn/shared/down': f'{_LAYER}.mlp.shared_experts.down_proj',
  ('*/mixer/c', '*/mixer/k_rope'): Fused(f'{_LAYER}.self_attn.kv_a_proj_with_mqa'),
  '*/mixer/c_norm': f'{_LAYER}.self_attn.kv_a_layernorm',
  ('*/mixer/k', '*/mixer/v'): ByHead(f'{_LAYER}.self_attn.kv_b_proj'),
}
LATENT: Names = {
  **STRAIGHT,
  '*/mixer/q_latent': f'{_LAYER}.self_attn.q_a_proj',
  '*/mixer/q_norm': f'{_LAYER}.self_attn.q_a_layernorm',
  '*/mixer/q': f'{_LAYER}.self_attn.q_b_proj',
}


def names(m: Any) -> Names:
  """The names of a spec."""
  return STRAIGHT if m.segments[0].pattern[0].mixer.q_rank is None else LATENT


V2 = Family('DeepseekV2', deepseek.read_v2, deepseek.write_v2, names, tops=DECODER)

#: The layer after the last of the released ones predicts the token after the next.
V3 = Family(
  'DeepseekV3', deepseek.read_v3, deepseek.write_v3, names, tops=DECODER,
  ignored=(r'^model\.layers\.61\.', r'rotary_emb\.inv_freq$'),
)  # fmt: skip
