"""GLM-4.5 (Zhipu AI, 2025): grouped-query attention, dense layers first, then experts."""

import dataclasses
from typing import Any

from tfm.model.spec import Block, Model, Segment
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.base import FFN
from tfm.parts.ffn.glu import Glu
from tfm.parts.ffn.moe import Moe
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.mtp.sequential import SequentialMTP
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.rope import RoPE
from tfm.parts.router.grouped import Grouped
from tfm.zoo import llama
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields, name_of
from tfm.zoo.layers import choose, layers_of

PAPER = 'GLM-4.5: Agentic, Reasoning, and Coding (ARC) Foundation Models, arXiv:2508.06471'


def glm4_moe(
  depth: int, dense: int, d: int, d_ff: int, experts: int, width: int, scale: float, normed: bool
) -> Model:
  """Return a pre-norm decoder with 96 query heads, dense SwiGLU layers, then experts.

  Args:
    depth: number of layers.
    dense: number of dense layers before the first layer with experts.
    d: width of the residual stream.
    d_ff: hidden width of the dense feed-forward.
    experts: number of experts.
    width: hidden width of an expert.
    scale: factor of the experts' weights.
    normed: whether queries and keys are normalised.

  Returns:
    The spec of the model.
  """
  norm = RMSNorm(1e-5)
  attention = Attention(
    96, 8, 128, RoPE(1e6, fraction=0.5), bias='qkv', qk_norm=norm if normed else None
  )
  moe = Moe(experts, Grouped(0.0, 0.0, 8, scale=scale, groups=1, keep=1), Glu(width), Glu(width))
  segments = (
    Segment((Block(attention, Glu(d_ff), norm),), dense),
    Segment((Block(attention, moe, norm),), depth - dense),
  )
  return Model(
    Tokens(151_552),
    d,
    segments,
    heads={'lm': Lm(tied=False)},
    norm=norm,
    init=Normal(depth_scaled=False),
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  norm = RMSNorm(c.get('rms_norm_eps', 1e-5))
  bias = 'qkv' if c.get('attention_bias') else ''
  qk_norm = norm if c.get('use_qk_norm') else None
  attention = llama.attention(c, 8, relative=c.rope(fraction=0.5), bias=bias, qk_norm=qk_norm)
  moe = mixture(c, experts=128, k=8, width=1408, shared=1, renormalize=True)
  dense, first = llama.glu(c, bias=False), c.get('first_k_dense_replace', 1)
  ffns: list[FFN] = choose((i < first for i in range(c['num_hidden_layers'])), dense, moe)
  spec = llama.decoder(c, [Block(attention, ffn, norm) for ffn in ffns], norm)
  ahead = c.get('num_nextn_predict_layers', c.get('num_mtp_layers', 0))
  return dataclasses.replace(spec, mtp=SequentialMTP(ahead, norm)) if ahead else spec


def mixture(c: Fields, experts: int, k: int, width: int, shared: int, renormalize: bool) -> Moe:
  """Return the experts of a config with DeepSeek-V3's routing.

  Args:
    c: fields of the config.
    experts: number of experts if the config has none.
    k: number of experts per token if the config has none.
    width: hidden width of an expert if the config has none.
    shared: number of shared experts if the config has none.
    renormalize: whether the selected weights sum to 1 if the config does not specify it.

  Returns:
    The mixture of experts.
  """
  # Both names mean the same routing.
  c.choice('scoring_func', {'sigmoid': True, 'noaux_tc': True}, 'sigmoid')
  c.only(topk_method='noaux_tc', moe_layer_freq=1, pretraining_tp=1)
  c.skip('aux_loss_alpha', 'ep_size', 'seq_aux')  # training only
  router = Grouped(
    0.0, 0.0, c.get('num_experts_per_tok', k), 'sigmoid', c.get('norm_topk_prob', renormalize),
    float(c.get('routed_scaling_factor', 1.0)), c.get('n_group', 1), c.get('topk_group', 1),
  )  # fmt: skip
  width, act = c.get('moe_intermediate_size', width), c.act('hidden_act', 'silu')
  n_shared = c.get('n_shared_experts', shared)
  n = c.get('n_routed_experts', c.get('num_local_experts', experts))
  return Moe(n, router, Glu(width, act), Glu(n_shared * width, act) if n_shared else None)


def mixed(m: FamilyModel) -> dict[str, Any]:
  """Return the config fields of a spec's sizes and experts."""
  ffns = [b.ffn for b in layers_of(m)]
  dense = [f for f in ffns if hasattr(f, 'd_ff')]
  moe = next(f for f in ffns if hasattr(f, 'expert'))
  shared = 0 if moe.shared is None else moe.shared.d_ff // moe.expert.d_ff
  return {
    'intermediate_size': moe.expert.d_ff, **llama.sizes(m), 'hidden_act': name_of(moe.expert.act),
    'first_k_dense_replace': len(dense), 'n_routed_experts': moe.experts,
    'num_experts_per_tok': moe.router.k,
    'moe_intermediate_size': moe.expert.d_ff, 'n_shared_experts': shared,
    'n_group': moe.router.groups,
    'topk_group': moe.router.keep, 'norm_topk_prob': moe.router.renormalize,
    'routed_scaling_factor': moe.router.scale,
  }  # fmt: skip


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  a, fields = m.segments[0].pattern[0].mixer, mixed(m)
  # Without the field, transformers rotates half of each head.
  fields['rope_parameters'] |= {'partial_rotary_factor': a.relative.fraction}
  ahead = m.mtp.depth if m.mtp else 0
  return {
    **fields, 'attention_bias': bool(a.bias), 'use_qk_norm': a.qk_norm is not None,
    'num_nextn_predict_layers': ahead,
  }  # fmt: skip


#: The numbers of parameters include the router biases but no multi-token prediction layer.
MODELS = {
  'glm4.5-air': Entry(
    glm4_moe(46, 1, 4096, 10_944, 128, 1408, 1.0, False), 106_852_251_264, '106B', PAPER
  ),
  'glm4.5': Entry(
    glm4_moe(92, 3, 5120, 12_288, 160, 1536, 2.5, True), 352_797_829_024, '355B', PAPER
  ),
}
