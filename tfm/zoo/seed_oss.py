"""Seed-OSS (ByteDance, 2025): Llama's block with biases of queries, keys and values."""

from typing import Any

from tfm.model.spec import Block, Model, Segment
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.glu import Glu
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.rope import RoPE
from tfm.zoo import llama
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields

CARD = 'Seed-OSS-36B, model card, ByteDance Seed 2025'


def seed_oss(depth: int, d: int, heads: int, kv_heads: int, d_ff: int) -> Model:
  """Return a pre-norm decoder with RMSNorm, RoPE, SwiGLU and heads of width 128.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    kv_heads: number of key/value heads.
    d_ff: hidden width of the feed-forward.

  Returns:
    The spec of the model.
  """
  norm = RMSNorm(1e-6)
  attention = Attention(heads, kv_heads, 128, RoPE(1e7), bias='qkv', dropout=0.1)
  segment = Segment((Block(attention, Glu(d_ff), norm, dropout=0.1),), depth)
  return Model(
    Tokens(155_136),
    d,
    (segment,),
    heads={'lm': Lm(tied=False)},
    norm=norm,
    init=Normal(depth_scaled=False),
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  c.only(pretraining_tp=1)
  norm, dropout = RMSNorm(c.get('rms_norm_eps', 1e-6)), c.get('residual_dropout', 0.1)
  bias = 'qkv' if c.get('attention_bias', True) else ''
  bias += 'o' if c.get('attention_out_bias', False) else ''
  attention = llama.attention(c, 8, 128, bias=bias, dropout=c.get('attention_dropout', 0.1))
  block = Block(attention, llama.glu(c), norm, dropout=dropout)
  return llama.decoder(c, [block] * c['num_hidden_layers'], norm)


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  block = m.segments[0].pattern[0]
  return {
    **llama.write(m), 'attention_bias': 'q' in block.mixer.bias,
    'attention_out_bias': 'o' in block.mixer.bias,
    'residual_dropout': block.dropout,
  }  # fmt: skip


MODELS = {'seed-oss-36b': Entry(seed_oss(64, 5120, 80, 8, 27_648), 36_151_104_512, '36B', CARD)}
