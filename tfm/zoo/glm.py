"""GLM-4 (Zhipu AI, 2024): Llama's block with interleaved RoPE on half of each head."""

from typing import Any

from tfm.model.spec import Block, Model, Segment
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.glu import Glu
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.rope import RoPE
from tfm.parts.residual_layout.pre import Pre
from tfm.zoo import glm4
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields

PAPER = (
  'ChatGLM: A Family of Large Language Models from GLM-130B to GLM-4 All Tools, arXiv:2406.12793'
)


def glm(depth: int, d: int, heads: int, kv_heads: int, d_ff: int) -> Model:
  """Return a pre-norm decoder with RMSNorm, SwiGLU, grouped-query attention and q/k/v biases.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    kv_heads: number of key/value heads.
    d_ff: hidden width of the feed-forward.

  Returns:
    The spec of the model.
  """
  norm, rope = RMSNorm(1.5625e-7), RoPE(1e4, 'interleaved', 0.5)
  block = Block(Attention(heads, kv_heads, 128, rope, bias='qkv'), Glu(d_ff), norm)
  segment = Segment((block,), depth)
  return Model(
    Tokens(151_552),
    d,
    (segment,),
    heads={'lm': Lm(tied=False)},
    norm=norm,
    init=Normal(depth_scaled=False),
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  return glm4.read(c, Pre())


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  return glm4.write(m)


MODELS = {'glm-9b': Entry(glm(40, 4096, 32, 2, 13_696), 9_399_951_360, '9.4B', PAPER)}
