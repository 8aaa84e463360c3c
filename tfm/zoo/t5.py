"""T5 and T5 v1.1, five sizes each (2019, 2020)."""

from tfm.model.spec import Block, Embed, Encoder, Head, Model, Segment
from tfm.parts.act.gelu import GeluTanh
from tfm.parts.act.relu import Relu
from tfm.parts.cross.attention import CrossAttention
from tfm.parts.ffn.base import FFN
from tfm.parts.ffn.glu import Glu
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.init.t5 import T5Init
from tfm.parts.mask.base import Mask
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.t5 import T5Bias
from tfm.zoo.entry import Entry

PAPER = 'Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer, arXiv:1910.10683'
PAPER_1_1 = f'{PAPER}, with GLU Variants Improve Transformer, arXiv:2002.05202'


def t5(depth: int, d: int, heads: int, d_kv: int, d_ff: int) -> Model:
  """Pre-norm by root mean square, no biases, ReLU, scores not divided, one bucket table a stack, logits / sqrt(D).

  *Differs*: the output of a stack's last norm is not dropped out.
  """
  return _stacks(depth, d, heads, d_kv, Mlp(d_ff, Relu(), bias=False, dropout=0.1), Head(power=-0.5), 0.1)


def t5_v1_1(depth: int, d: int, heads: int, d_ff: int) -> Model:
  """T5 with gated GELU and an untied head, pre-trained without dropout."""
  return _stacks(depth, d, heads, 64, Glu(d_ff, GeluTanh()), Head(tied=False), 0.0)


def _stacks(depth: int, d: int, heads: int, d_kv: int, ffn: FFN, head: Head, dropout: float) -> Model:
  norm, relative = RMSNorm(1e-6), T5Bias()
  cross = CrossAttention(heads, head_dim=d_kv, scale=1.0, dropout=dropout)
  look = Attention(heads, head_dim=d_kv, mask=Mask(), scale=1.0, dropout=dropout)
  reader = Block(look, ffn, norm, dropout=dropout)
  writer = Block(Attention(heads, head_dim=d_kv, scale=1.0, dropout=dropout), ffn, norm, cross=cross, dropout=dropout)
  encoder = Encoder((Segment((reader,), depth),), norm=norm, shared_relative=relative)
  return Model(
    32_128, d, (Segment((writer,), depth),), norm=norm, shared_relative=relative,
    embed=Embed(dropout=dropout), head=head, init=T5Init(), encoder=encoder,
  )  # fmt: skip


MODELS = {
  't5-small': Entry(t5(6, 512, 8, 64, 2048), 60_506_624, '60M', PAPER),
  't5-base': Entry(t5(12, 768, 12, 64, 3072), 222_903_552, '220M', PAPER),
  't5-large': Entry(t5(24, 1024, 16, 64, 4096), 737_668_096, '770M', PAPER),
  't5-3b': Entry(t5(24, 1024, 32, 128, 16_384), 2_851_598_336, '2.8B', PAPER),
  't5-11b': Entry(t5(24, 1024, 128, 128, 65_536), 11_307_321_344, '11B', PAPER),
  't5-v1.1-small': Entry(t5_v1_1(8, 512, 6, 1024), 76_961_152, '77M', PAPER_1_1),
  't5-v1.1-base': Entry(t5_v1_1(12, 768, 12, 2048), 247_577_856, '250M', PAPER_1_1),
  't5-v1.1-large': Entry(t5_v1_1(24, 1024, 16, 2816), 783_150_080, '800M', PAPER_1_1),
  't5-v1.1-xl': Entry(t5_v1_1(24, 2048, 32, 5120), 2_849_757_184, '3B', PAPER_1_1),
  't5-v1.1-xxl': Entry(t5_v1_1(24, 4096, 64, 10_240), 11_135_332_352, '11B', PAPER_1_1),
}
