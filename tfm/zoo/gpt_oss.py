"""GPT-OSS (OpenAI, 2025): attention sinks, alternating local layers, experts with biases."""

import dataclasses
from typing import Any

from tfm.model.spec import Block, Model, Segment
from tfm.parts.act.sigmoid import Swish
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.glu import Glu
from tfm.parts.ffn.moe import Moe
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.rope import RoPE
from tfm.parts.relative.scaling.yarn import Yarn
from tfm.parts.router.top_k import TopK
from tfm.zoo import llama
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields
from tfm.zoo.layers import causal_mask, every_nth_global, masks, types_of, window_of

PAPER = 'gpt-oss-120b & gpt-oss-20b Model Card, arXiv:2508.10925'
ROPE = RoPE(1.5e5, scaling=Yarn(32.0, 4096, truncate=False))


def gpt_oss(depth: int, experts: int) -> Model:
  """Return a pre-norm decoder with 64 heads, 8 key/value heads and 4 experts per token."""
  norm = RMSNorm(1e-5, scale_first=True)
  full = Attention(64, 8, 64, ROPE, bias='qkvo', sink=True)
  local = dataclasses.replace(full, mask=causal_mask(128))
  moe = Moe(experts, TopK(k=4, bias=True), Glu(2880, Swish(1.702), True, limit=7.0, shift=1.0))
  segment = Segment((Block(local, moe, norm), Block(full, moe, norm)), depth // 2)
  return Model(
    Tokens(201_088),
    2880,
    (segment,),
    heads={'lm': Lm(tied=False)},
    norm=norm,
    init=Normal(depth_scaled=False),
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  c.only(hidden_act='silu')
  # An older name of `num_experts_per_tok`, and a duplicate of a `rope_scaling` key.
  c.skip('experts_per_token', 'initial_context_length')
  norm, n = RMSNorm(c.get('rms_norm_eps', 1e-5), scale_first=True), c['num_hidden_layers']
  act, limit = Swish(c.get('swiglu_alpha', 1.702)), c.get('swiglu_limit', 7.0)
  router = TopK(
    c.get('router_aux_loss_coef', 0.001), 0.0, c.get('num_experts_per_tok', 4), bias=True
  )
  expert = Glu(c['intermediate_size'], act, True, limit=limit, shift=1.0)
  moe = Moe(c.get('num_local_experts', c.get('num_experts', 128)), router, expert)
  rope = c.rope(1.5e5, partial=False)
  if not (c.get('rope_parameters') or c.get('rope_scaling')):
    rope = dataclasses.replace(ROPE, base=rope.base)
  fields = {'relative': rope, 'bias': 'qkvo' if c.get('attention_bias', True) else ''}
  attention = lambda mask: llama.attention(c, 8, 64, mask=mask, sink=True, **fields)
  layer_masks = masks(c, every_nth_global(n, 2), c.given('sliding_window', 128))
  return llama.decoder(c, [Block(attention(mask), moe, norm) for mask in layer_masks], norm)


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  block = m.segments[0].pattern[0]
  moe = block.ffn
  return {
    **llama.sizes(m), 'attention_bias': bool(block.mixer.bias), 'sliding_window': window_of(m),
    'layer_types': types_of(m), 'hidden_act': 'silu', 'intermediate_size': moe.expert.d_ff,
    'num_local_experts': moe.experts, 'num_experts_per_tok': moe.router.k,
    'swiglu_alpha': moe.expert.act.beta,
    'swiglu_limit': moe.expert.limit, 'router_aux_loss_coef': moe.router.balance,
  }  # fmt: skip


MODELS = {
  'gpt-oss-20b': Entry(gpt_oss(24, 32), 20_914_757_184, '20.9B', PAPER),
  'gpt-oss-120b': Entry(gpt_oss(36, 128), 116_829_156_672, '116.8B', PAPER),
}
