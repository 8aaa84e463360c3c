"""OLMoE (AI2, 2024): 8 of 64 narrow experts per token, and query/key norms over all heads."""

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
from tfm.zoo import llama
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields
from tfm.zoo.qwen3_moe import mixed, top

PAPER = 'OLMoE: Open Mixture-of-Experts Language Models, arXiv:2409.02060'


def olmoe(depth: int, d: int, heads: int, d_ff: int, experts: int, k: int) -> Model:
  """Return a pre-norm decoder with RoPE and SwiGLU experts, weighted without renormalization.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    d_ff: hidden width of an expert.
    experts: number of experts.
    k: number of experts per token.

  Returns:
    The spec of the model.
  """
  norm = RMSNorm(1e-5)
  attention = Attention(heads, heads, d // heads, RoPE(1e4), qk_norm=norm, qk_norm_over='all')
  moe = Moe(experts, TopK(0.01, 0.001, k, renormalize=False), Glu(d_ff))
  segment = Segment((Block(attention, moe, norm),), depth)
  return Model(
    Tokens(50_304),
    d,
    (segment,),
    heads={'lm': Lm(tied=False)},
    norm=norm,
    init=Normal(depth_scaled=False),
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  norm = RMSNorm(c.get('rms_norm_eps', 1e-5))
  attention = llama.attention(c, qk_norm=norm, qk_norm_over='all', clip=c.get('clip_qkv'))
  moe = Moe(c.get('num_experts', 64), top(c, 8), llama.glu(c))
  return llama.decoder(c, [Block(attention, moe, norm)] * c['num_hidden_layers'], norm)


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  a, fields = m.segments[0].pattern[0].mixer, mixed(m)
  for name in ('moe_intermediate_size', 'decoder_sparse_step', 'mlp_only_layers'):
    del fields[name]
  return {**fields, 'attention_bias': bool(a.bias), 'clip_qkv': a.clip}


MODELS = {'olmoe-1b-7b': Entry(olmoe(16, 2048, 16, 1024, 64, 8), 6_919_161_856, '6.9B', PAPER)}
