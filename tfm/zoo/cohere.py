"""Command R and R+, Aya (Cohere, 2024): parallel residual branches and scaled logits."""

from typing import Any

from tfm.model.spec import Block, Model, Segment
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.glu import Glu
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.base import Norm
from tfm.parts.norm.layer import LayerNorm
from tfm.parts.relative.rope import RoPE
from tfm.parts.residual_layout.parallel import Parallel
from tfm.zoo import llama
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields
from tfm.zoo.phi import sizes

PAPER = 'Command R, model card, Cohere 2024'
PLUS = 'Command R+, model card, Cohere 2024'


def cohere(
  depth: int, d: int, heads: int, kv_heads: int, d_ff: int, base: float, scale: float, each: bool
) -> Model:
  """Return a parallel-branch decoder with bias-free LayerNorm, interleaved RoPE and SwiGLU.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    kv_heads: number of key/value heads.
    d_ff: hidden width of the feed-forward.
    base: base of the rotary position embedding.
    scale: factor of the logits.
    each: whether every head has its own query and key norms.

  Returns:
    The spec of the model.
  """
  norm = LayerNorm(1e-5, bias=False)
  qk_norm: Norm | None = norm if each else None
  rope = RoPE(base, 'interleaved')
  attention = Attention(
    heads, kv_heads, d // heads, rope, qk_norm=qk_norm, qk_norm_over='each' if each else 'head'
  )
  block = Block(attention, Glu(d_ff), norm, Parallel())
  return Model(
    Tokens(256_000),
    d,
    (Segment((block,), depth),),
    heads={'lm': Lm(scale=scale)},
    norm=norm,
    init=Normal(depth_scaled=False),
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  c.skip('model_max_length')
  norm = LayerNorm(c.get('layer_norm_eps', 1e-5), bias=False)
  qk_norm: dict[str, Any] = (
    {'qk_norm': norm, 'qk_norm_over': 'each'} if c.get('use_qk_norm') else {}
  )
  attention = llama.attention(c, relative=c.rope(5e5, 'interleaved', partial=False), **qk_norm)
  block = Block(attention, llama.glu(c, bias=False), norm, Parallel())
  return llama.decoder(
    c, [block] * c['num_hidden_layers'], norm, True, scale=c.get('logit_scale', 0.0625)
  )


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  a = m.segments[0].pattern[0].mixer
  scale = 0.0625 if m.lm is None else m.lm.scale
  return {
    **sizes(m),
    'attention_bias': bool(a.bias),
    'use_qk_norm': a.qk_norm is not None,
    'logit_scale': scale,
  }


MODELS = {
  'command-r-35b': Entry(
    cohere(40, 8192, 64, 64, 22_528, 8e6, 0.0625, False), 34_980_831_232, '35B', PAPER
  ),
  'command-r-plus-104b': Entry(
    cohere(64, 12_288, 96, 8, 33_792, 75e6, 0.8333333333333334, True), 103_810_674_688, '104B', PLUS
  ),
}
