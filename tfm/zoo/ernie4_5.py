"""ERNIE 4.5 0.3B (Baidu, 2025): Llama's block with interleaved RoPE."""

from typing import Any

from tfm.model.spec import Block, Model, Segment
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.glu import Glu
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.rope import RoPE
from tfm.zoo import llama
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields

PAPER = 'ERNIE 4.5 Technical Report, Baidu 2025'


def ernie4_5(depth: int, d: int, heads: int, kv_heads: int, d_ff: int) -> Model:
  """Return a tied pre-norm decoder with RMSNorm, RoPE, SwiGLU and heads of width 128.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    kv_heads: number of key/value heads.
    d_ff: hidden width of the feed-forward.

  Returns:
    The spec of the model.
  """
  norm = RMSNorm(1e-5)
  attention = Attention(heads, kv_heads, 128, RoPE(5e5, 'interleaved'))
  segment = Segment((Block(attention, Glu(d_ff), norm),), depth)
  return Model(Tokens(103_424), d, (segment,), norm=norm, init=Normal(depth_scaled=False))


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  norm, bias = RMSNorm(c.get('rms_norm_eps', 1e-5)), c.get('use_bias', False)
  attention = llama.attention(
    c, 2, 128, relative=c.rope(5e5, 'interleaved', partial=False), bias='qkvo' if bias else ''
  )
  return llama.decoder(
    c, [Block(attention, llama.glu(c, bias=bias), norm)] * c['num_hidden_layers'], norm, True
  )


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  fields = llama.sizes(m)
  del fields['attention_dropout']
  return {**fields, 'use_bias': m.segments[0].pattern[0].ffn.bias}


MODELS = {'ernie4.5-0.3b': Entry(ernie4_5(18, 1024, 16, 2, 3072), 360_748_032, '0.36B', PAPER)}
