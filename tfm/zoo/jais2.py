"""Jais 2 (Inception, 2025): an Arabic and English decoder with LayerNorm and squared ReLU."""

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

CARD = 'Jais-2-8B, model card, Inception 2025'


def jais2(depth: int, d: int, heads: int, d_ff: int) -> Model:
  """Return an untied pre-norm decoder with RoPE and biases everywhere.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    d_ff: hidden width of the feed-forward.

  Returns:
    The spec of the model.
  """
  norm = LayerNorm(1e-5)
  attention = Attention(heads, heads, d // heads, RoPE(1e4), bias='qkvo')
  segment = Segment((Block(attention, Mlp(d_ff, SquaredRelu()), norm),), depth)
  return Model(
    Tokens(150_272),
    d,
    (segment,),
    heads={'lm': Lm(tied=False)},
    norm=norm,
    init=Normal(depth_scaled=False),
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  norm = LayerNorm(c.get('layer_norm_eps', 1e-5))
  bias = 'qkvo' if c.get('attention_bias', True) else ''
  ffn = Mlp(c['intermediate_size'], c.act('hidden_act', 'relu2'), c.get('mlp_bias', True))
  return llama.decoder(
    c, [Block(llama.attention(c, bias=bias), ffn, norm)] * c['num_hidden_layers'], norm
  )


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  block = m.segments[0].pattern[0]
  return {**phi.sizes(m), 'attention_bias': bool(block.mixer.bias), 'mlp_bias': block.ffn.bias}


MODELS = {'jais2-8b': Entry(jais2(32, 3328, 26, 26_624), 8_090_401_280, '8B', CARD)}
