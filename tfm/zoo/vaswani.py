"""The original encoder-decoder transformer (Vaswani et al., 2017)."""

from tfm.model.spec import Block, Model, Segment, Tower
from tfm.parts.absolute.sinusoidal import Sinusoidal
from tfm.parts.act.relu import Relu
from tfm.parts.cross.attention import CrossAttention
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.init.xavier import Xavier
from tfm.parts.mask.base import Mask
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.layer import LayerNorm
from tfm.parts.residual_layout.post import Post
from tfm.zoo.entry import Entry

PAPER = 'Attention Is All You Need, arXiv:1706.03762'


def vaswani(d: int, heads: int, dropout: float) -> Model:
  """Return a post-norm encoder-decoder of 6 + 6 layers with one table of 37,000 byte pairs.

  Args:
    d: width of the residual stream.
    heads: number of attention heads.
    dropout: dropout rate of the residual branches and the embeddings.

  Returns:
    The spec of the model.

  Note:
    The released code has no biases in attention: 36,864 parameters fewer in the base model.
  """
  norm, ffn = LayerNorm(1e-6), Mlp(4 * d, Relu())
  encoder_block = Block(
    Attention(heads, mask=Mask(), bias='qkvo'), ffn, norm, Post(), dropout=dropout
  )
  cross = CrossAttention(heads, bias='qkvo')
  decoder_block = Block(Attention(heads, bias='qkvo'), ffn, norm, Post(), cross, dropout)
  encoder = Tower(segments=(Segment((encoder_block,), 6),), absolute=Sinusoidal(), norm=norm)
  return Model(
    Tokens(37_000, power=0.5, dropout=dropout),
    d,
    (Segment((decoder_block,), 6),),
    Sinusoidal(),
    norm,
    init=Xavier(),
    towers={'encoder': encoder},
  )


MODELS = {
  'vaswani-base': Entry(vaswani(512, 8, 0.1), 63_082_496, '65M', PAPER),
  'vaswani-big': Entry(vaswani(1024, 16, 0.3), 214_245_376, '213M', PAPER),
}
