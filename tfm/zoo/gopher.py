"""Gopher (Rae et al., 2021) and Chinchilla (Hoffmann et al., 2022)."""

from tfm.model.spec import Block, Model, Segment
from tfm.parts.act.gelu import GeluTanh
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.xl import XL
from tfm.zoo.entry import Entry

PAPER = (
  'Scaling Language Models: Methods, Analysis & Insights from Training Gopher, arXiv:2112.11446'
)
CHINCHILLA = 'Training Compute-Optimal Large Language Models, arXiv:2203.15556'


def gopher(depth: int, d: int, heads: int, head_dim: int = 128) -> Model:
  """Return a tied pre-norm decoder with RMSNorm, Transformer-XL positions, GELU and no biases.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    head_dim: width of a head.

  Returns:
    The spec of the model.
  """
  norm = RMSNorm()
  block = Block(Attention(heads, None, head_dim, XL()), Mlp(4 * d, GeluTanh(), bias=False), norm)
  return Model(Tokens(32_000), d, (Segment((block,), depth),), norm=norm)


MODELS = {
  'gopher-44m': Entry(gopher(8, 512, 16, 32), 43_663_872, '44M', PAPER),
  'gopher-117m': Entry(gopher(12, 768, 12, 64), 116_626_176, '117M', PAPER),
  'gopher-417m': Entry(gopher(12, 1536, 12), 417_277_440, '417M', PAPER),
  'gopher-1.4b': Entry(gopher(24, 2048, 16), 1_374_357_504, '1.4B', PAPER),
  'gopher-7.1b': Entry(gopher(32, 4096, 32), 7_110_922_240, '7.1B', PAPER),
  'gopher-280b': Entry(gopher(80, 16_384, 128), 279_702_421_504, '280B', PAPER),
  'chinchilla-70b': Entry(gopher(80, 8192, 64), 70_057_992_192, '70B', CHINCHILLA),
}
