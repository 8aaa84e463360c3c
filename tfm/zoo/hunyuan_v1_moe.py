"""Hunyuan-A13B (Tencent, 2025): query/key norms after the rotation, experts and a shared one."""

from typing import Any

from tfm.core import errors
from tfm.model.spec import Block, Model, Segment
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.glu import Glu
from tfm.parts.ffn.moe import Moe
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.rope import RoPE
from tfm.parts.router.top_k import TopK
from tfm.zoo import llama
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields, name_of
from tfm.zoo.layers import layers_of
from tfm.zoo.rope import rope_fields, rope_from

CARD = 'Hunyuan-A13B Technical Report, Tencent 2025'


def hunyuan_moe(
  depth: int, d: int, heads: int, kv_heads: int, d_ff: int, experts: int, k: int
) -> Model:
  """Return a tied pre-norm decoder with RoPE and SwiGLU experts with renormalized weights.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    kv_heads: number of key/value heads.
    d_ff: hidden width of each expert and of the shared expert.
    experts: number of experts.
    k: number of experts per token.

  Returns:
    The spec of the model.
  """
  norm = RMSNorm(1e-5)
  rope = RoPE(_ntk_base(1e4, 1000.0, 128))
  attention = Attention(heads, kv_heads, 128, rope, qk_norm=norm, rotate_first=True)
  moe = Moe(experts, TopK(0.0, 0.0, k), Glu(d_ff), Glu(d_ff))
  segments = (Segment((Block(attention, moe, norm),), depth),)
  return Model(Tokens(128_167), d, segments, norm=norm, init=Normal(depth_scaled=False))


def _ntk_base(base: float, alpha: float, d: int) -> float:
  """Return the NTK-aware base of a rotary position embedding for heads of width `d`."""
  return float(base * alpha ** (d / (d - 2)))


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  c.only(pretraining_tp=1, use_qk_norm=True, use_cla=False, use_mla=False, use_mixed_mlp_moe=True)
  c.only(
    moe_layer_num_skipped=0,
    group_limited_greedy=False,
    norm_topk_prob=True,
    routed_scaling_factor=1.0,
  )
  # Token ids, training settings, and fields of variants that are errors above.
  c.skip(
    'eod_token_id',
    'pad_id',
    'im_start_id',
    'im_end_id',
    'im_newline_id',
    'text_start_id',
    'text_end_id',
  )
  c.skip(
    'cla_share_factor',
    'moe_drop_tokens',
    'moe_random_routing_dropped_token',
    'mlp_bias',
    'norm_type',
  )
  c.skip(
    'attention_head_dim',
    'use_rotary_pos_emb',
    'capacity_factor',
    'qk_nope_head_dim',
    'qk_rope_head_dim',
  )
  c.skip('kv_lora_rank', 'q_lora_rank', 'v_head_dim', 'n_group', 'topk_group', 'org_vocab_size')
  norm = RMSNorm(c.get('rms_norm_eps', 1e-5))
  n = c['num_hidden_layers']
  dense = llama.glu(c, bias=False)
  _same(c, 'moe_intermediate_size', dense.d_ff)
  _same(c, 'num_shared_expert', 1)
  attention = llama.attention(c, relative=_rope(c), qk_norm=norm, rotate_first=True)
  each = c.get('moe_topk', c.get('num_experts_per_tok', 1))
  each = each if isinstance(each, list) else [each] * n
  experts = c.get('num_experts', 1)
  ffns = [Moe(experts, TopK(0.0, 0.0, k), dense, dense) for k in each]
  return llama.decoder(c, [Block(attention, ffn, norm) for ffn in ffns], norm)


def _same(c: Fields, name: str, known: int) -> None:
  """Check a field that has one number, or a list with one number per layer.

  Raises:
    UserError: if some layer has another number.
  """
  given = c.get(name, known)
  for value in given if isinstance(given, list) else [given]:
    if value != known:
      raise errors.UserError(
        f'{c.where}: {name} is {value} in some layer. Expected {known} in every layer.'
      )


def _rope(c: Fields) -> RoPE:
  """Return the rotary position embedding; 'dynamic' with `alpha` is a fixed NTK-aware base."""
  given = rope_fields(c)
  alpha = given.get('alpha')
  if given.get('rope_type', given.get('type')) != 'dynamic' or not alpha:
    return c.rope()
  base = given.get('rope_theta', c.get('rope_theta', 1e4))
  size = c.get('head_dim', c['hidden_size'] // c['num_attention_heads'])
  return rope_from(c, {'rope_type': 'default', 'rope_theta': _ntk_base(base, alpha, size)})


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  moe = m.segments[0].pattern[0].ffn
  each = [b.ffn.router.k for b in layers_of(m)]
  return {
    **llama.sizes(m), 'attention_bias': bool(m.segments[0].pattern[0].mixer.bias),
    'num_experts': moe.experts,
    'moe_topk': each if len({*each}) > 1 else each[0], 'intermediate_size': moe.expert.d_ff,
    'hidden_act': name_of(moe.expert.act),
  }  # fmt: skip


MODELS = {
  'hunyuan-a13b': Entry(hunyuan_moe(32, 4096, 32, 8, 3072, 64, 8), 80_393_183_232, '80B', CARD)
}
