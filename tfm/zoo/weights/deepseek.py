"""Checkpoints of DeepSeek-V2 and V3."""

from tfm.model.spec import depth
from tfm.zoo import deepseek
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.weights import llama
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import ByHead, Fused, Whole, layers_under
from tfm.zoo.weights.tops import DECODER

_LAYER = 'model.layers.*'

#: Experts with shared ones and a router bias.
EXPERTS: Names = {
  **llama.EXPERTS,
  '*/ffn/router/bias': Whole(f'{_LAYER}.mlp.gate.e_score_correction_bias'),
  '*/ffn/shared/gate': f'{_LAYER}.mlp.shared_experts.gate_proj',
  '*/ffn/shared/up': f'{_LAYER}.mlp.shared_experts.up_proj',
  '*/ffn/shared/down': f'{_LAYER}.mlp.shared_experts.down_proj',
}

#: Queries are projected directly (`q_proj`), or from a latent.
DIRECT_QUERY: Names = {
  **llama.NAMES,
  **EXPERTS,
  ('*/mixer/c', '*/mixer/k_rope'): Fused(f'{_LAYER}.self_attn.kv_a_proj_with_mqa'),
  '*/mixer/c_norm': f'{_LAYER}.self_attn.kv_a_layernorm',
  ('*/mixer/k', '*/mixer/v'): ByHead(f'{_LAYER}.self_attn.kv_b_proj'),
}
LATENT_QUERY: Names = {
  **DIRECT_QUERY,
  '*/mixer/q_latent': f'{_LAYER}.self_attn.q_a_proj',
  '*/mixer/q_norm': f'{_LAYER}.self_attn.q_a_layernorm',
  '*/mixer/q': f'{_LAYER}.self_attn.q_b_proj',
}


#: Inputs of a multi-token prediction layer, and the norm before the shared head.
MTP_NAMES: Names = {
  'mtp/join/embed_norm': f'{_LAYER}.enorm',
  'mtp/join/hidden_norm': f'{_LAYER}.hnorm',
  'mtp/join/project': f'{_LAYER}.eh_proj',
  'mtp/norm': f'{_LAYER}.shared_head.norm',
}


def names(m: FamilyModel) -> Names:
  """Return the names of a spec."""
  return DIRECT_QUERY if m.segments[0].pattern[0].mixer.q_rank is None else LATENT_QUERY


def names_with_mtp(m: FamilyModel) -> Names:
  """Return the names of a spec and of its multi-token prediction layers.

  Checkpoints number these layers after the model's own.
  """
  return {**names(m), **layers_under(names(m), 'mtp/'), **MTP_NAMES}


def mtp_twins(m: FamilyModel) -> dict[str, str]:
  """Return tensors that each multi-token prediction layer duplicates from the model."""
  head = 'embed/table' if m.lm is None or m.lm.tied else 'head/head/kernel'
  again = {'embed_tokens.weight': 'embed/table', 'shared_head.head.weight': head}
  n = m.mtp.depth if m.mtp else 0
  layers = [f'model.layers.{depth(m) + k}' for k in range(n)]
  return {f'{layer}.{name}': path for layer in layers for name, path in again.items()}


def ignored_tensors(m: FamilyModel) -> tuple[str, ...]:
  """Return patterns of ignored tensors.

  These are tables of rotary angles, and multi-token prediction layers if the config has none.
  """
  behind = '|'.join(str(depth(m) + k) for k in range(8))
  return r'rotary_emb\.inv_freq$', *(() if m.mtp else (rf'^(model\.)?layers\.({behind})\.',))


V2 = Family('DeepseekV2', deepseek.read_v2, deepseek.write_v2, names, tops=DECODER)

V3 = Family(
  'DeepseekV3', deepseek.read_v3, deepseek.write_v3, names_with_mtp, tops=DECODER,
  ignored=ignored_tensors,
  twins=mtp_twins,
)  # fmt: skip
