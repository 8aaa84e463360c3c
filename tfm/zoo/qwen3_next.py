"""Qwen3-Next (2025): three Gated DeltaNet layers per attention layer, and 512 experts."""

import dataclasses
from typing import Any

from tfm.model.spec import Block, Model, Segment
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.glu import Glu
from tfm.parts.ffn.moe import Moe
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.mixer.base import Mixer
from tfm.parts.mixer.gated_delta import GatedDelta
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.rope import RoPE
from tfm.parts.router.top_k import TopK
from tfm.zoo import llama
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields, name_of
from tfm.zoo.layers import GLOBAL, as_attention, check_layer_types, choose, layers_of
from tfm.zoo.qwen3_moe import ffns, top

POST = 'Qwen3-Next: Towards Ultimate Training & Inference Efficiency, Qwen Team 2025'
LINEAR = 'linear_attention'


def scaled(eps: float) -> RMSNorm:
  """Return the model's RMSNorm, which stores its scale minus one."""
  return RMSNorm(eps, one_plus=True, scale_first=True)


def qwen3_next(
  depth: int, d: int, heads: int, kv_heads: int, moe: Moe, recurrent: GatedDelta
) -> Model:
  """Return a pre-norm hybrid with RMSNorm and RoPE on a quarter of each head.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    kv_heads: number of key/value heads.
    moe: mixture of experts.
    recurrent: mixer of the recurrent layers.

  Returns:
    The spec of the model.
  """
  norm = scaled(1e-6)
  attention = Attention(heads, kv_heads, 256, RoPE(1e7, fraction=0.25), qk_norm=norm, gated=True)
  blocks = [Block(mixer, moe, norm) for mixer in (recurrent, recurrent, recurrent, attention)]
  segments = (Segment(tuple(blocks), depth // 4),)
  return Model(
    Tokens(151_936),
    d,
    segments,
    heads={'lm': Lm(tied=False)},
    norm=norm,
    init=Normal(depth_scaled=False),
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  shared = llama.glu(c, bias=False, d_ff=c.get('shared_expert_intermediate_size', 512))
  expert = Glu(c.get('moe_intermediate_size', 512))
  moe = Moe(c.get('num_experts', 512), top_of(c, 10), expert, shared, shared_gate=True)
  unbiased = lambda f: dataclasses.replace(f, bias=False) if isinstance(f, Glu) else f
  dense = map(unbiased, ffns(c, moe))
  norm = scaled(c.get('rms_norm_eps', 1e-6))
  layers = [
    Block(mixer, ffn, norm)
    for mixer, ffn in zip(mixers(c, 2, c.rope(fraction=0.25)), dense, strict=True)
  ]
  return llama.decoder(c, layers, norm)


def top_of(c: Fields, k: int) -> TopK:
  """Return the router of a config; its weights sum to 1 by default."""
  return dataclasses.replace(top(c, k), renormalize=c.get('norm_topk_prob', True))


def mixers(c: Fields, kv_heads: int, rope: RoPE) -> list[Mixer]:
  """Return the mixer of every layer, by `layer_types` or `full_attention_interval`.

  Args:
    c: fields of the config.
    kv_heads: number of key/value heads.
    rope: rotary position embedding.

  Returns:
    One mixer per layer.
  """
  n, every = c['num_hidden_layers'], c.get('full_attention_interval', 4)
  types = c.get('layer_types', choose(((i + 1) % every for i in range(n)), LINEAR, GLOBAL))
  check_layer_types(c, types, (LINEAR, GLOBAL))
  eps, norm = c.get('rms_norm_eps', 1e-6), scaled(c.get('rms_norm_eps', 1e-6))
  attention = llama.attention(c, kv_heads, 256, relative=rope, qk_norm=norm, gated=True)
  recurrent = GatedDelta(
    c.get('linear_num_value_heads', 32), c.get('linear_num_key_heads', 16),
    c.get('linear_key_head_dim', 128),
    c.get('linear_value_head_dim', 128), c.get('linear_conv_kernel_dim', 4),
    c.act('hidden_act', 'silu'), RMSNorm(eps),
  )  # fmt: skip
  return choose((t == GLOBAL for t in types), attention, recurrent)


def mixed(m: FamilyModel) -> dict[str, Any]:
  """Return the config fields of a spec's mixers and sizes."""
  attention_only = as_attention(m)
  fields, attention = llama.sizes(attention_only), attention_only.segments[0].pattern[0].mixer
  # Without the field, transformers rotates a quarter of each head.
  fields['rope_parameters'] |= {'partial_rotary_factor': attention.relative.fraction}
  types = choose((hasattr(b.mixer, 'sizes') for b in layers_of(m)), GLOBAL, LINEAR)
  fields |= {'attention_bias': bool(attention.bias), 'layer_types': types}
  r = next((b.mixer for b in layers_of(m) if isinstance(b.mixer, GatedDelta)), None)
  return fields if r is None else {
    **fields, 'linear_num_value_heads': r.heads, 'linear_num_key_heads': r.key_heads,
    'linear_key_head_dim': r.key_dim,
    'linear_value_head_dim': r.head_dim, 'linear_conv_kernel_dim': r.conv,
  }  # fmt: skip


def experts(m: FamilyModel) -> dict[str, Any]:
  """Return the config fields of a spec's experts."""
  moe = next(b.ffn for b in layers_of(m) if hasattr(b.ffn, 'expert'))
  return {
    'hidden_act': name_of(moe.expert.act), 'num_experts': moe.experts,
    'num_experts_per_tok': moe.router.k,
    'moe_intermediate_size': moe.expert.d_ff, 'shared_expert_intermediate_size': moe.shared.d_ff,
    'norm_topk_prob': moe.router.renormalize, 'router_aux_loss_coef': moe.router.balance,
  }  # fmt: skip


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  ffns = [b.ffn for b in layers_of(m)]
  dense = [i for i, f in enumerate(ffns) if not hasattr(f, 'expert')]
  fields = {**mixed(m), **experts(m), 'mlp_only_layers': dense, 'decoder_sparse_step': 1}
  return {
    **fields,
    'intermediate_size': ffns[dense[0]].d_ff if dense else fields['moe_intermediate_size'],
  }


_MOE = Moe(512, TopK(0.001, 0.0, 10), Glu(512), Glu(512), shared_gate=True)
_SPEC = qwen3_next(48, 2048, 16, 2, _MOE, GatedDelta(32, 16, 128, 128))

MODELS = {'qwen3-next-80b-a3b': Entry(_SPEC, 79_674_391_296, '80B', POST)}
