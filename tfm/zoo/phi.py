"""Phi 1, 1.5 and 2 (Microsoft, 2023): parallel branches behind one norm."""

from typing import Any

from tfm.model.spec import Block, Model, Segment
from tfm.parts.act.gelu import GeluTanh
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.layer import LayerNorm
from tfm.parts.relative.rope import RoPE
from tfm.parts.residual_layout.parallel import Parallel
from tfm.zoo import llama
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields
from tfm.zoo.gpt_neox import all_rope_parameters

PAPER = 'Phi-2: The surprising power of small language models, Microsoft 2023'


def phi(depth: int, d: int, heads: int, rotary: int = 32) -> Model:
  """Return an untied parallel-branch decoder with partial RoPE, tanh GELU and biases.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    rotary: number of rotated dimensions of a head.

  Returns:
    The spec of the model.
  """
  norm, rope = LayerNorm(1e-5), RoPE(fraction=rotary * heads / d)
  block = Block(
    Attention(heads, relative=rope, bias='qkvo'), Mlp(4 * d, GeluTanh()), norm, Parallel()
  )
  head = Lm(tied=False, bias=True)
  return Model(
    Tokens(51_200),
    d,
    (Segment((block,), depth),),
    heads={'lm': head},
    norm=norm,
    init=Normal(depth_scaled=False),
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  norm = LayerNorm(c.get('layer_norm_eps', 1e-5))
  qk_norm = norm if c.get('qk_layernorm') else None
  attention = llama.attention(c, relative=c.rope(fraction=0.5), bias='qkvo', qk_norm=qk_norm)
  ffn = Mlp(c['intermediate_size'], c.act('hidden_act', 'gelu_new'))
  block = Block(attention, ffn, norm, Parallel(), dropout=c.get('resid_pdrop', 0.0))
  embed = Tokens(dropout=c.get('embd_pdrop', 0.0))
  return llama.decoder(c, [block] * c['num_hidden_layers'], norm, embed=embed, bias=True)


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  block = m.segments[0].pattern[0]
  return {
    **sizes(m), 'rope_parameters': all_rope_parameters(block.mixer.relative),
    'resid_pdrop': block.dropout,
    'embd_pdrop': m.embed.dropout, 'qk_layernorm': block.mixer.qk_norm is not None,
  }  # fmt: skip


def sizes(m: FamilyModel) -> dict[str, Any]:
  """Return Llama's config fields, with the epsilon as `layer_norm_eps`."""
  fields = llama.sizes(m)
  eps = fields.pop('rms_norm_eps')
  return {**fields, 'layer_norm_eps': eps}


MODELS = {'phi-2': Entry(phi(32, 2560, 32), 2_779_683_840, '2.7B', PAPER)}
