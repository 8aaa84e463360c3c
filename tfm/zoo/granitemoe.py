"""Granite 3 mixtures (IBM, 2024): Granite's multipliers and narrow experts."""

import dataclasses
from typing import Any

from tfm.model.spec import Block, Model, Segment
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.glu import Glu
from tfm.parts.ffn.moe import Moe
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.rope import RoPE
from tfm.parts.residual_scale.fixed import Fixed
from tfm.parts.router.top_k import TopK
from tfm.zoo import granite, llama
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields, name_of
from tfm.zoo.layers import layers_of, segments

PAPER = 'Granite 3.0 Language Models, IBM 2024'


def granitemoe(depth: int, d: int, heads: int, experts: int) -> Model:
  """Return a tied pre-norm decoder with RoPE, 8 key/value heads and 8 experts per token.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    experts: number of experts.

  Returns:
    The spec of the model.
  """
  norm = RMSNorm(1e-6)
  attention = Attention(heads, 8, 64, RoPE(1e4), scale=0.015625)
  block = Block(attention, Moe(experts, TopK(k=8), Glu(512)), norm, residual_scale=Fixed(0.22))
  return Model(
    Tokens(49_155, 12.0),
    d,
    (Segment((block,), depth),),
    heads={'lm': Lm(scale=1 / 6)},
    norm=norm,
    init=Normal(depth_scaled=False),
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json` without a shared expert."""
  dense = granite.read(c)
  return with_experts(dense, [mixture(c)] * c['num_hidden_layers'])


def read_shared(c: Fields) -> Model:
  """Return the spec of a published `config.json` with a shared expert; width 0 means none."""
  dense = granite.read(c)
  return with_experts(dense, [shared_mixture(c)] * c['num_hidden_layers'])


def mixture(c: Fields) -> Moe:
  """Return the experts of a config, weighted by a softmax over the selected logits."""
  router = TopK(c.get('router_aux_loss_coef', 0.001), 0.0, c.get('num_experts_per_tok', 2))
  return Moe(c.get('num_local_experts', 8), router, llama.glu(c, bias=False))


def shared_mixture(c: Fields) -> Moe:
  """Return the experts of a config with its shared expert."""
  width = c.get('shared_intermediate_size', 0)
  shared = Glu(width, c.act('hidden_act', 'silu')) if width else None
  return dataclasses.replace(mixture(c), shared=shared)


def with_experts(m: Model, ffns: list[Any]) -> Model:
  """Return `m` with other feed-forwards.

  Args:
    m: spec of the model.
    ffns: feed-forward of every layer.

  Returns:
    The spec with these feed-forwards.
  """
  pairs = zip(layers_of(m), ffns, strict=True)
  return dataclasses.replace(
    m, segments=segments([dataclasses.replace(b, ffn=ffn) for b, ffn in pairs])
  )


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  block = m.segments[0].pattern[0]
  moe = block.ffn
  return {
    **llama.sizes(m), **granite.multipliers(m), 'attention_bias': bool(block.mixer.bias),
    'intermediate_size': moe.expert.d_ff, 'hidden_act': name_of(moe.expert.act),
    'num_local_experts': moe.experts,
    'num_experts_per_tok': moe.router.k, 'router_aux_loss_coef': moe.router.balance,
  }  # fmt: skip


def write_shared(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec with a shared expert."""
  shared = m.segments[0].pattern[0].ffn.shared
  return {**write(m), 'shared_intermediate_size': 0 if shared is None else shared.d_ff}


MODELS = {
  'granite3-1b-a400m': Entry(granitemoe(24, 1024, 16, 32), 1_334_628_352, '1.3B', PAPER),
  'granite3-3b-a800m': Entry(granitemoe(32, 1536, 24, 40), 3_298_793_472, '3.3B', PAPER),
}
