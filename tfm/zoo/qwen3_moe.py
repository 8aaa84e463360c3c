"""Qwen3 mixtures (2025): 8 of 128 narrow experts per token, and query/key norms."""

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
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.rope import RoPE
from tfm.parts.router.top_k import TopK
from tfm.zoo import llama
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields, name_of
from tfm.zoo.layers import causal_mask, choose, layers_of, window_of

PAPER = 'Qwen3 Technical Report, arXiv:2505.09388'


def qwen3_moe(
  depth: int, d: int, heads: int, d_ff: int, head_dim: int = 128, experts: int = 128, k: int = 8
) -> Model:
  """Return a pre-norm decoder with RoPE, 4 key/value heads and SwiGLU experts.

  The weights of the selected experts sum to 1.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    d_ff: hidden width of an expert.
    head_dim: width of a head.
    experts: number of experts.
    k: number of experts per token.

  Returns:
    The spec of the model.
  """
  norm = RMSNorm(1e-6)
  attention = Attention(heads, 4, head_dim, RoPE(1e6), qk_norm=norm)
  segment = Segment((Block(attention, Moe(experts, TopK(k=k), Glu(d_ff)), norm),), depth)
  return Model(
    Tokens(151_936),
    d,
    (segment,),
    heads={'lm': Lm(tied=False)},
    norm=norm,
    init=Normal(depth_scaled=False),
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  norm = RMSNorm(c.get('rms_norm_eps', 1e-6))
  window = c.given('sliding_window', 4096) if c.get('use_sliding_window') else None
  c.skip('sliding_window', 'max_window_layers')
  attention = llama.attention(c, 4, qk_norm=norm, mask=causal_mask(window))
  moe = Moe(
    c.get('num_local_experts', c.get('num_experts', 128)),
    top(c, 8),
    Glu(c.get('moe_intermediate_size', 768)),
  )
  return llama.decoder(c, [Block(attention, ffn, norm) for ffn in ffns(c, moe)], norm)


def top(c: Fields, k: int) -> TopK:
  """Return the router of a config."""
  renormalize = c.get('norm_topk_prob', False)
  return TopK(
    c.get('router_aux_loss_coef', 0.001),
    0.0,
    c.get('num_experts_per_tok', k),
    renormalize=renormalize,
  )


def ffns(c: Fields, moe: Moe) -> list[FFN]:
  """Return the feed-forward of every layer: experts, or a dense one."""
  dense, step, plain = llama.glu(c), c.get('decoder_sparse_step', 1), c.get('mlp_only_layers', [])
  expert: Any = moe.expert
  moe = dataclasses.replace(moe, expert=dataclasses.replace(expert, act=dense.act))
  sparse = lambda i: moe.experts and i not in plain and (i + 1) % step == 0
  return choose(map(sparse, range(c['num_hidden_layers'])), moe, dense)


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  window = window_of(m)
  bias = bool(m.segments[0].pattern[0].mixer.bias)
  return {
    **mixed(m), 'attention_bias': bias, 'use_sliding_window': window is not None,
    'sliding_window': window,
  }  # fmt: skip


def mixed(m: FamilyModel) -> dict[str, Any]:
  """Return the config fields of a spec's sizes and experts."""
  ffns = [b.ffn for b in layers_of(m)]
  moe = next(f for f in ffns if hasattr(f, 'expert'))
  return {
    'intermediate_size': moe.expert.d_ff, 'hidden_act': name_of(moe.expert.act), **llama.sizes(m),
    'num_experts': moe.experts, 'num_experts_per_tok': moe.router.k,
    'norm_topk_prob': moe.router.renormalize,
    'router_aux_loss_coef': moe.router.balance, 'moe_intermediate_size': moe.expert.d_ff,
    'decoder_sparse_step': 1,
    'mlp_only_layers': [i for i, f in enumerate(ffns) if not hasattr(f, 'expert')],
  }  # fmt: skip


MODELS = {
  'qwen3-30b-a3b': Entry(qwen3_moe(48, 2048, 32, 768), 30_532_122_624, '30.5B', PAPER),
  'qwen3-235b-a22b': Entry(qwen3_moe(94, 4096, 64, 1536), 235_093_634_560, '235B', PAPER),
}
