"""GPT-2, four sizes (2019)."""

from tfm.model.spec import Block, Embed, Model, Segment
from tfm.parts.absolute.learned import Learned
from tfm.parts.act.gelu import GeluTanh
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.layer import LayerNorm
from tfm.zoo.entry import Entry

PAPER = 'Language Models are Unsupervised Multitask Learners, OpenAI 2019'


def gpt2(depth: int, d: int, heads: int) -> Model:
  """Pre-norm, learned positions, tanh GELU, biases everywhere, tied, residual weights started at .02 / sqrt(2 L)."""
  norm = LayerNorm(1e-5)
  attention = Attention(heads, bias='qkvo', dropout=0.1)
  block = Block(attention, Mlp(4 * d, GeluTanh()), norm, dropout=0.1)
  return Model(50_257, d, (Segment((block,), depth),), Learned(1024), norm, embed=Embed(dropout=0.1))


MODELS = {
  'gpt2': Entry(gpt2(12, 768, 12), 124_439_808, '117M', PAPER),
  'gpt2-medium': Entry(gpt2(24, 1024, 16), 354_823_168, '345M', PAPER),
  'gpt2-large': Entry(gpt2(36, 1280, 20), 774_030_080, '762M', PAPER),
  'gpt2-xl': Entry(gpt2(48, 1600, 25), 1_557_611_200, '1542M', PAPER),
}
