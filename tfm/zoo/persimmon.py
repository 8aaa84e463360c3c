"""Persimmon (Adept, 2023): a decoder with squared ReLU and LayerNorm of queries and keys."""

from typing import Any

from tfm.model.spec import Block, Model, Segment
from tfm.parts.act.relu import SquaredRelu
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.layer import LayerNorm
from tfm.parts.relative.rope import RoPE
from tfm.zoo import llama, phi
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields
from tfm.zoo.gpt_neox import all_rope_parameters

POST = 'Releasing Persimmon-8B, Adept 2023'


def persimmon(depth: int, d: int, heads: int, d_ff: int) -> Model:
  """Return an untied pre-norm decoder with biases and RoPE on half of each head.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    d_ff: hidden width of the feed-forward.

  Returns:
    The spec of the model.
  """
  norm = LayerNorm(1e-5)
  attention = Attention(
    heads, heads, d // heads, RoPE(25_000.0, fraction=0.5), bias='qkvo', qk_norm=norm
  )
  segment = Segment((Block(attention, Mlp(d_ff, SquaredRelu()), norm),), depth)
  return Model(
    Tokens(262_144),
    d,
    (segment,),
    heads={'lm': Lm(tied=False)},
    norm=norm,
    init=Normal(depth_scaled=False),
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  norm = LayerNorm(c.get('layer_norm_eps', 1e-5))
  qk_norm = norm if c.get('qk_layernorm', True) else None
  attention = llama.attention(c, relative=c.rope(fraction=0.5), bias='qkvo', qk_norm=qk_norm)
  ffn = Mlp(c['intermediate_size'], c.act('hidden_act', 'relu2'))
  block = Block(attention, ffn, norm, dropout=c.get('hidden_dropout', 0.0))
  return llama.decoder(c, [block] * c['num_hidden_layers'], norm)


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  block, fields = m.segments[0].pattern[0], phi.sizes(m)
  del fields['head_dim'], fields['num_key_value_heads']
  return {
    **fields, 'rope_parameters': all_rope_parameters(block.mixer.relative),
    'hidden_dropout': block.dropout,
    'qk_layernorm': block.mixer.qk_norm is not None,
  }  # fmt: skip


MODELS = {'persimmon-8b': Entry(persimmon(36, 4096, 64, 16_384), 9_397_175_296, '9.3B', POST)}
