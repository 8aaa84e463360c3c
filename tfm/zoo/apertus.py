"""Apertus (Swiss AI Initiative, 2025): Llama's block with query/key norms and xIELU."""

from typing import Any

from tfm.model.spec import Block, Model, Segment
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.base import FFN
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.ffn.xielu import Xielu
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.rope import RoPE
from tfm.parts.relative.scaling.llama3 import Llama3
from tfm.zoo import llama
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields, name_of

PAPER = (
  'Apertus: Democratizing Open and Compliant LLMs for Global Language Environments, '
  'arXiv:2509.14233'
)
_ROPE = RoPE(1.2e7, scaling=Llama3(8.0))


def apertus(depth: int, d: int, heads: int, d_ff: int) -> Model:
  """Return a pre-norm decoder with RMSNorm, RoPE, 8 key/value heads and an ungated xIELU.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    d_ff: hidden width of the feed-forward.

  Returns:
    The spec of the model.
  """
  norm = RMSNorm(1e-5)
  block = Block(Attention(heads, 8, d // heads, _ROPE, qk_norm=norm), Xielu(d_ff), norm)
  segment = Segment((block,), depth)
  return Model(
    Tokens(131_072),
    d,
    (segment,),
    heads={'lm': Lm(tied=False)},
    norm=norm,
    init=Normal(depth_scaled=False),
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  c.only(mlp_bias=False, qk_norm=True, post_norm=False)
  c.skip('hidden_dropout')  # unused in transformers
  norm, d_ff = RMSNorm(c.get('rms_norm_eps', 1e-5)), c['intermediate_size']
  ffn: FFN = Xielu(d_ff)
  if c.get('hidden_act', 'xielu') != 'xielu':
    ffn = Mlp(d_ff, c.act('hidden_act'), bias=False)
  rope = c.rope(1.2e7) if 'rope_parameters' in c or 'rope_scaling' in c else _ROPE
  block = Block(llama.attention(c, qk_norm=norm, relative=rope), ffn, norm)
  return llama.decoder(c, [block] * c['num_hidden_layers'], norm)


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  block, fields = m.segments[0].pattern[0], llama.sizes(m, None)
  act = name_of(block.ffn.act) if hasattr(block.ffn, 'act') else 'xielu'
  return {
    **{name: value for name, value in fields.items() if name != 'head_dim'},
    'rms_norm_eps': m.norm.eps,
    'intermediate_size': block.ffn.d_ff, 'hidden_act': act,
    'attention_bias': bool(block.mixer.bias),
  }  # fmt: skip


MODELS = {
  'apertus-8b': Entry(apertus(32, 4096, 32, 21_504), 8_053_338_176, '8B', PAPER),
  'apertus-70b': Entry(apertus(80, 8192, 64, 43_008), 70_599_864_480, '70B', PAPER),
}
