"""AFM-4.5B (Arcee AI, 2025): Llama's block with squared ReLU in place of SwiGLU."""

from typing import Any

from tfm.model.spec import Block, Model, Segment
from tfm.parts.act.relu import SquaredRelu
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.rope import RoPE
from tfm.parts.relative.scaling.yarn import Yarn
from tfm.zoo import llama
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields

CARD = 'AFM-4.5B, model card, Arcee AI 2025'


def arcee(depth: int, d: int, heads: int, kv_heads: int, d_ff: int) -> Model:
  """Return a pre-norm decoder with RMSNorm, RoPE, grouped-query attention and squared ReLU.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    kv_heads: number of key/value heads.
    d_ff: hidden width of the feed-forward.

  Returns:
    The spec of the model.
  """
  norm, rope = RMSNorm(1e-5), RoPE(1e4, scaling=Yarn(20.0, 4096, 32.0, 1.0))
  block = Block(Attention(heads, kv_heads, 128, rope), Mlp(d_ff, SquaredRelu(), bias=False), norm)
  segment = Segment((block,), depth)
  return Model(
    Tokens(128_004),
    d,
    (segment,),
    heads={'lm': Lm(tied=False)},
    norm=norm,
    init=Normal(depth_scaled=False),
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  norm = RMSNorm(c.get('rms_norm_eps', 1e-5))
  ffn = Mlp(c['intermediate_size'], c.act('hidden_act', 'relu2'), c.get('mlp_bias', False))
  return llama.decoder(c, [Block(llama.attention(c), ffn, norm)] * c['num_hidden_layers'], norm)


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  return llama.write(m)


MODELS = {'afm-4.5b': Entry(arcee(36, 2560, 20, 4, 18_432), 4_619_184_640, '4.6B', CARD)}
