"""Qwen2 mixtures (2024): narrow experts, and a wide shared expert with a gate."""

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
from tfm.parts.router.top_k import TopK
from tfm.zoo import llama, qwen2
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields
from tfm.zoo.layers import GLOBAL, LOCAL, choose, layers_of, masks
from tfm.zoo.qwen3_moe import ffns, mixed, top

PAPER = 'Qwen2 Technical Report, arXiv:2407.10671'
POST = 'Qwen1.5-MoE: Matching 7B Model Performance with 1/3 Activated Parameters, Qwen Team 2024'


def qwen2_moe(
  depth: int, d: int, heads: int, kv_heads: int, experts: int, k: int, d_ff: int, shared: int
) -> Model:
  """Return a pre-norm decoder with RoPE, q/k/v biases, SwiGLU experts and a gated shared one.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    kv_heads: number of key/value heads.
    experts: number of experts.
    k: number of experts per token.
    d_ff: hidden width of an expert.
    shared: hidden width of the shared expert.

  Returns:
    The spec of the model.
  """
  norm = RMSNorm(1e-6)
  moe = Moe(experts, TopK(k=k, renormalize=False), Glu(d_ff), Glu(shared), shared_gate=True)
  segment = Segment(
    (Block(Attention(heads, kv_heads, d // heads, RoPE(1e6), bias='qkv'), moe, norm),), depth
  )
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
  norm, bias = RMSNorm(c.get('rms_norm_eps', 1e-6)), 'qkv' if c.get('qkv_bias', True) else ''
  shared = llama.glu(c, d_ff=c.get('shared_expert_intermediate_size', 5632))
  expert = Glu(c.get('moe_intermediate_size', 1408))
  moe = Moe(c.get('num_experts', 60), top(c, 4), expert, shared, shared_gate=True)
  window = c.given('sliding_window', 4096) if c.get('use_sliding_window') else None
  first = c.get('max_window_layers', 28)
  c.skip('sliding_window')
  local = [window is not None and i < first and i % 2 == 0 for i in range(c['num_hidden_layers'])]
  layer_masks = masks(c, choose(local, LOCAL, GLOBAL), window)
  pairs = zip(layer_masks, ffns(c, moe), strict=True)
  return llama.decoder(
    c, [Block(llama.attention(c, 16, bias=bias, mask=m), ffn, norm) for m, ffn in pairs], norm
  )


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  moe = next(b.ffn for b in layers_of(m) if hasattr(b.ffn, 'expert'))
  fields = {**mixed(m), **qwen2.mask_fields(m), 'shared_expert_intermediate_size': moe.shared.d_ff}
  return {**fields, 'qkv_bias': bool(m.segments[0].pattern[0].mixer.bias)}


MODELS = {
  'qwen1.5-moe-a2.7b': Entry(
    qwen2_moe(24, 2048, 16, 16, 60, 4, 1408, 5632), 14_315_784_192, '14.3B', POST
  ),
  'qwen2-57b-a14b': Entry(
    qwen2_moe(28, 3584, 28, 4, 64, 8, 2560, 20_480), 57_408_658_944, '57.4B', PAPER
  ),
}
