"""PaLM (Chowdhery et al., 2022): parallel branches, multi-query attention and SwiGLU."""

from tfm.model.spec import Block, Model, Segment
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.glu import Glu
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.layer import LayerNorm
from tfm.parts.relative.rope import RoPE
from tfm.parts.residual_layout.parallel import Parallel
from tfm.zoo.entry import Entry

PAPER = 'PaLM: Scaling Language Modeling with Pathways, arXiv:2204.02311'


def palm(depth: int, d: int, heads: int) -> Model:
  """Return a tied parallel-branch decoder with interleaved RoPE, and logits / sqrt(d).

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.

  Returns:
    The spec of the model.
  """
  norm = LayerNorm(bias=False)
  block = Block(Attention(heads, 1, 256, RoPE(layout='interleaved')), Glu(4 * d), norm, Parallel())
  return Model(
    Tokens(256_000),
    d,
    (Segment((block,), depth),),
    heads={'lm': Lm(power=-0.5)},
    norm=norm,
    init=Normal(depth_scaled=False),
  )


MODELS = {
  'palm-8b': Entry(palm(32, 4096, 16), 8_632_012_800, '8.63B', PAPER),
  'palm-62b': Entry(palm(64, 8192, 32), 62_495_662_080, '62.50B', PAPER),
  'palm-540b': Entry(palm(118, 18_432, 48), 540_356_474_880, '540.35B', PAPER),
}
