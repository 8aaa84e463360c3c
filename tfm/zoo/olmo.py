"""OLMo (AI2, 2024): Llama's block with LayerNorm that has no parameters."""

from typing import Any

from tfm.model.spec import Block, Model, Segment
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.glu import Glu
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.layer import LayerNorm
from tfm.parts.relative.rope import RoPE
from tfm.zoo import llama
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields

PAPER = 'OLMo: Accelerating the Science of Language Models, arXiv:2402.00838'
NORM = LayerNorm(1e-5, bias=False, scale=False)


def olmo(depth: int, d: int, heads: int, d_ff: int, tied: bool = False) -> Model:
  """Return a pre-norm decoder with parameter-free LayerNorm, RoPE, SwiGLU and no biases.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    d_ff: hidden width of the feed-forward.
    tied: whether the head shares the token table.

  Returns:
    The spec of the model.
  """
  segment = Segment(
    (Block(Attention(heads, heads, d // heads, RoPE(1e4)), Glu(d_ff), NORM),), depth
  )
  return Model(
    Tokens(50_304),
    d,
    (segment,),
    heads={'lm': Lm(tied=tied)},
    norm=NORM,
    init=Normal(depth_scaled=False),
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  attention = llama.attention(c, clip=c.get('clip_qkv'))
  return llama.decoder(c, [Block(attention, llama.glu(c), NORM)] * c['num_hidden_layers'], NORM)


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  a = m.segments[0].pattern[0].mixer
  return {**llama.sizes(m, None), 'attention_bias': bool(a.bias), 'clip_qkv': a.clip}


MODELS = {
  'olmo-1b': Entry(olmo(16, 2048, 16, 8192, True), 1_176_764_416, '1.2B', PAPER),
  'olmo-7b': Entry(olmo(32, 4096, 32, 11_008), 6_888_095_744, '6.9B', PAPER),
}
