"""GPT-3 (Brown et al., 2020): GPT-2's block with alternating full and local layers."""

import dataclasses

from tfm.model.spec import Block, Model, Segment
from tfm.parts.absolute.learned import Learned
from tfm.parts.act.gelu import GeluTanh
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.mask.causal import Causal
from tfm.parts.mask.window import Window
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.layer import LayerNorm
from tfm.zoo.entry import Entry

PAPER = 'Language Models are Few-Shot Learners, arXiv:2005.14165'


def gpt3(depth: int, d: int, heads: int, head_dim: int, band: int = 256) -> Model:
  """Return a GPT-2 with 2048 positions, in which every other layer is local.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    head_dim: width of a head.
    band: number of tokens that a local layer attends to.

  Returns:
    The spec of the model.

  Note:
    The paper does not state the width of the band; 256 is GPT-Neo's.
  """
  norm, full = LayerNorm(1e-5), Attention(heads, None, head_dim, bias='qkvo')
  local = dataclasses.replace(full, mask=Causal() & Window(band))
  pattern = tuple(Block(mixer, Mlp(4 * d, GeluTanh()), norm) for mixer in (full, local))
  return Model(Tokens(50_257), d, (Segment(pattern, depth // 2),), Learned(2048), norm)


#: The paper states 24 heads and 1.3B parameters for XL; 24 heads give 1.5B, and 16 give 1.3B.
MODELS = {
  'gpt3-small': Entry(gpt3(12, 768, 12, 64), 125_226_240, '125M', PAPER),
  'gpt3-medium': Entry(gpt3(24, 1024, 16, 64), 355_871_744, '350M', PAPER),
  'gpt3-large': Entry(gpt3(24, 1536, 16, 96), 760_300_032, '760M', PAPER),
  'gpt3-xl': Entry(gpt3(24, 2048, 16, 128), 1_315_723_264, '1.3B', PAPER),
  'gpt3-2.7b': Entry(gpt3(32, 2560, 32, 80), 2_651_553_280, '2.7B', PAPER),
  'gpt3-6.7b': Entry(gpt3(32, 4096, 32, 128), 6_658_404_352, '6.7B', PAPER),
  'gpt3-13b': Entry(gpt3(40, 5140, 40, 128), 12_936_488_380, '13.0B', PAPER),
  'gpt3-175b': Entry(gpt3(96, 12_288, 96, 128), 174_604_259_328, '175.0B', PAPER),
}
