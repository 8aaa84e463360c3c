"""BERT with its masked-LM head (2018)."""

from tfm.model.spec import Block, Embed, Head, Model, Segment, Transform
from tfm.parts.absolute.learned import Learned
from tfm.parts.act.gelu import Gelu
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.init.normal import Normal
from tfm.parts.mask.base import Mask
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.layer import LayerNorm
from tfm.parts.wiring.post import Post
from tfm.zoo.entry import Entry

PAPER = 'BERT: Pre-training of Deep Bidirectional Transformers, arXiv:1810.04805'


def bert(depth: int, d: int, heads: int) -> Model:
  """An encoder, post-norm, erf GELU, learned positions, two token types, norm on the embeddings; uncased vocabulary.

  *Differs*: no pooler and no next-sentence head.
  """
  norm = LayerNorm(1e-12)
  attention = Attention(heads, mask=Mask(), bias='qkvo', dropout=0.1)
  block = Block(attention, Mlp(4 * d, Gelu()), norm, Post(), dropout=0.1)
  return Model(
    30_522, d, (Segment((block,), depth),), Learned(512), norm,
    embed=Embed(types=2, norm=norm, dropout=0.1), head=Head(bias=True, transform=Transform(Gelu(), norm)),
    init=Normal(depth_scaled=False, truncated=True),
  )  # fmt: skip


MODELS = {
  'bert-base': Entry(bert(12, 768, 12), 109_514_298, '110M', PAPER),
  'bert-large': Entry(bert(24, 1024, 16), 335_174_458, '340M', PAPER),
}
