"""T5 (Raffel et al., 2019) and T5 v1.1 (2020): pre-norm encoder-decoders.

Relative position buckets are shared by the layers of a stack.
"""

from typing import Any

from tfm.model.spec import Block, Model, Segment, Tower, depth
from tfm.parts.act.gelu import GeluTanh
from tfm.parts.act.relu import Relu
from tfm.parts.act.sigmoid import Swish
from tfm.parts.cross.attention import CrossAttention
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.base import FFN
from tfm.parts.ffn.glu import Glu
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.head.lm import Lm
from tfm.parts.init.t5 import T5Init
from tfm.parts.mask.base import Mask
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.t5 import T5Bias
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields

PAPER = (
  'Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer, '
  'arXiv:1910.10683'
)
PAPER_1_1 = f'{PAPER}, with GLU Variants Improve Transformer, arXiv:2002.05202'


def t5(layers: int, d: int, heads: int, d_kv: int, d_ff: int) -> Model:
  """Return a pre-norm encoder-decoder with RMSNorm, ReLU, no biases and logits / sqrt(d).

  The attention scores are not divided by sqrt(d_kv).

  Args:
    layers: number of layers of each stack.
    d: width of the residual stream.
    heads: number of attention heads.
    d_kv: width of a head.
    d_ff: hidden width of the feed-forward.

  Returns:
    The spec of the model.

  Note:
    There is no dropout after the final norm of a stack.
  """
  ffn = Mlp(d_ff, Relu(), bias=False, dropout=0.1)
  return stacks(
    32_128, (layers, layers), d, heads, d_kv, ffn, Lm(power=-0.5), T5Bias(), RMSNorm(1e-6), 0.1
  )


def t5_v1_1(layers: int, d: int, heads: int, d_ff: int) -> Model:
  """Return a T5 with gated GELU and an untied head, pre-trained without dropout.

  Args:
    layers: number of layers of each stack.
    d: width of the residual stream.
    heads: number of attention heads.
    d_ff: hidden width of the feed-forward.

  Returns:
    The spec of the model.
  """
  ffn = Glu(d_ff, GeluTanh())
  return stacks(
    32_128, (layers, layers), d, heads, 64, ffn, Lm(tied=False), T5Bias(), RMSNorm(1e-6), 0.0
  )


def stacks(
  vocab: int, depths: tuple[int, int], d: int, heads: int, d_kv: int, ffn: FFN, head: Lm,
  relative: T5Bias,
  norm: RMSNorm, dropout: float,
) -> Model:  # fmt: skip
  """Return an encoder and a decoder with T5's attention.

  Args:
    vocab: size of the vocabulary.
    depths: number of layers of the encoder and of the decoder.
    d: width of the residual stream.
    heads: number of attention heads.
    d_kv: width of a head.
    ffn: feed-forward of a layer.
    head: output head.
    relative: relative position buckets, one table per stack.
    norm: norm of all layers.
    dropout: dropout rate of the residual branches.

  Returns:
    The spec of the model.
  """
  cross = CrossAttention(heads, head_dim=d_kv, scale=1.0, dropout=dropout)
  encoder_attention = Attention(heads, head_dim=d_kv, mask=Mask(), scale=1.0, dropout=dropout)
  encoder_block = Block(encoder_attention, ffn, norm, dropout=dropout)
  decoder_block = Block(
    Attention(heads, head_dim=d_kv, scale=1.0, dropout=dropout),
    ffn,
    norm,
    cross=cross,
    dropout=dropout,
  )
  encoder = Tower(
    segments=(Segment((encoder_block,), depths[0]),), norm=norm, shared_relative=relative
  )
  return Model(
    Tokens(vocab, dropout=dropout),
    d,
    (Segment((decoder_block,), depths[1]),),
    heads={'lm': head},
    norm=norm,
    shared_relative=relative,
    init=T5Init(),
    towers={'encoder': encoder},
  )


#: `feed_forward_proj` -> (gated, activation).
_FFNS = {'relu': (False, Relu()), 'gated-gelu': (True, GeluTanh()), 'gated-silu': (True, Swish())}


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`; logits are scaled only if the head is tied.

  `scale_decoder_outputs`, which transformers 5 writes, overrides this.
  """
  tied = c.get('tie_word_embeddings', True)
  return read_stacks(c, Lm(tied, power=-0.5 if c.get('scale_decoder_outputs', tied) else 0.0))


def read_stacks(c: Fields, head: Lm, ffn_name: str = 'relu') -> Model:
  """Return the spec of a config with T5's fields.

  Args:
    c: fields of the config.
    head: output head.
    ffn_name: `feed_forward_proj` if the config has none.

  Returns:
    The spec of the model.
  """
  c.skip('n_positions', 'dense_act_fn', 'is_gated_act', 'classifier_dropout', 'output_past')
  dropout, d_ff, layers = c.get('dropout_rate', 0.1), c['d_ff'], c['num_layers']
  gated, act = c.choice('feed_forward_proj', _FFNS, ffn_name)
  ffn = Glu(d_ff, act, dropout=dropout) if gated else Mlp(d_ff, act, bias=False, dropout=dropout)
  relative = T5Bias(
    c.get('relative_attention_num_buckets', 32), c.get('relative_attention_max_distance', 128)
  )
  depths = (layers, c.get('num_decoder_layers', layers))
  norm = RMSNorm(c.get('layer_norm_epsilon', 1e-6))
  return stacks(
    c['vocab_size'],
    depths,
    c['d_model'],
    c['num_heads'],
    c['d_kv'],
    ffn,
    head,
    relative,
    norm,
    dropout,
  )


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  return {**write_stacks(m), 'scale_decoder_outputs': m.lm is None or m.lm.power == -0.5}


def write_stacks(m: FamilyModel) -> dict[str, Any]:
  """Return the config fields that `read_stacks` reads.

  An encoder alone is written as if it had a decoder of equal depth.
  """
  block, relative, tied = m.segments[0].pattern[0], m.shared_relative, m.lm is None or m.lm.tied
  key = isinstance(block.ffn, Glu), block.ffn.act
  ffn_name = next(name for name, gated_act in _FFNS.items() if gated_act == key)
  return {
    'vocab_size': m.vocab, 'd_model': m.d_model, 'd_kv': block.mixer.size(m.d_model),
    'd_ff': block.ffn.d_ff,
    'num_heads': block.mixer.heads, 'num_layers': depth(m.encoder or m),
    'num_decoder_layers': depth(m),
    'relative_attention_num_buckets': relative.buckets,
    'relative_attention_max_distance': relative.far,
    'dropout_rate': block.dropout, 'layer_norm_epsilon': block.norm.eps,
    'feed_forward_proj': ffn_name,
    'tie_word_embeddings': tied,
  }  # fmt: skip


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
