"""Nemotron-4 (NVIDIA, 2024) and Minitron: decoders with squared ReLU."""

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
from tfm.zoo import llama
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields
from tfm.zoo.gpt_neox import all_rope_parameters

PAPER_15B = 'Nemotron-4 15B Technical Report, arXiv:2402.16819'
PAPER_340B = 'Nemotron-4 340B Technical Report, arXiv:2406.11704'


def nemotron(depth: int, d: int, heads: int) -> Model:
  """Return an untied pre-norm decoder with 8 key/value heads and RoPE on half of each head.

  LayerNorm stores its scale minus one. Projections have no biases.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.

  Returns:
    The spec of the model.
  """
  norm = LayerNorm(1e-5, one_plus=True)
  attention = Attention(heads, 8, d // heads, RoPE(fraction=0.5))
  block = Block(attention, Mlp(4 * d, SquaredRelu(), bias=False), norm)
  return Model(
    Tokens(256_000),
    d,
    (Segment((block,), depth),),
    heads={'lm': Lm(False)},
    norm=norm,
    init=Normal(depth_scaled=False),
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  c.only(layernorm_type='layernorm1p')
  c.skip('kv_channels', 'num_query_groups', 'rope_percent')  # said by other fields too
  norm = LayerNorm(c.get('norm_eps', 1e-5), one_plus=True)
  ffn = Mlp(c['intermediate_size'], c.act('hidden_act', 'relu2'), c.get('mlp_bias', False))
  block = Block(llama.attention(c, relative=c.rope(fraction=0.5)), ffn, norm)
  return llama.decoder(c, [block] * c['num_hidden_layers'], norm)


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  block = m.segments[0].pattern[0]
  fields = llama.write(m)
  eps, rope = fields.pop('rms_norm_eps'), all_rope_parameters(block.mixer.relative)
  return {**fields, 'norm_eps': eps, 'rope_parameters': rope}


MODELS = {
  'nemotron4-15b': Entry(nemotron(32, 6144, 48), 15_628_775_424, '15B', PAPER_15B),
  'nemotron4-340b': Entry(nemotron(96, 18_432, 96), 341_029_195_776, '340B', PAPER_340B),
}
