"""LongT5 (Guo et al., 2021): T5 with local or transient-global attention in the encoder."""

from collections.abc import Callable
import dataclasses
from typing import Any

from tfm.model.spec import Model
from tfm.parts.head.lm import Lm
from tfm.parts.mask.base import Mask
from tfm.parts.mask.window import Window
from tfm.parts.mixer.attention import Attention
from tfm.parts.mixer.transient import Transient
from tfm.parts.relative.t5 import T5Bias
from tfm.zoo import t5
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields
from tfm.zoo.layers import layers_of, segments

PAPER = 'LongT5: Efficient Text-To-Text Transformer for Long Sequences, arXiv:2112.07916'


def longt5(layers: int, d: int, heads: int, d_ff: int, radius: int = 127) -> Model:
  """Return a T5 v1.1 with local encoder attention.

  Args:
    layers: number of layers of each stack.
    d: width of the residual stream.
    heads: number of attention heads.
    d_ff: hidden width of the feed-forward.
    radius: number of tokens on each side that the encoder attends to.

  Returns:
    The spec of the model.
  """
  return local(t5.t5_v1_1(layers, d, heads, d_ff), radius)


def tglobal(layers: int, d: int, heads: int, d_ff: int, radius: int = 127, pool: int = 16) -> Model:
  """Return a T5 v1.1 with local encoder attention and global summaries of blocks.

  Args:
    layers: number of layers of each stack.
    d: width of the residual stream.
    heads: number of attention heads.
    d_ff: hidden width of the feed-forward.
    radius: number of tokens on each side that the encoder attends to.
    pool: number of tokens of a block.

  Returns:
    The spec of the model.
  """
  return transient(t5.t5_v1_1(layers, d, heads, d_ff), radius, pool)


def local(m: Model, radius: int) -> Model:
  """Return `m` with local encoder attention."""
  return _with_encoder_attention(
    m, lambda attention, mask: dataclasses.replace(attention, mask=mask), radius
  )


def transient(m: Any, radius: int, pool: int) -> Model:
  """Return `m` with local encoder attention and global summaries of blocks.

  A second table holds the relative positions of blocks.

  Args:
    m: spec of the model.
    radius: number of tokens on each side that the encoder attends to.
    pool: number of tokens of a block.

  Returns:
    The spec of the model.
  """
  m = _with_encoder_attention(
    m,
    lambda attention, mask: Transient(**{**vars(attention), 'mask': mask}, pool=pool, norm=m.norm),
    radius,
  )
  assert m.encoder is not None
  relative = m.encoder.shared_relative
  assert isinstance(relative, T5Bias)
  encoder = dataclasses.replace(
    m.encoder, shared_relative=dataclasses.replace(relative, blocks=True)
  )
  return m.with_towers(encoder=encoder)


def _with_encoder_attention(
  m: Model, mixer: Callable[[Attention, Mask], Attention], radius: int
) -> Model:
  assert m.encoder is not None
  mask = Window(radius + 1, ahead=True)
  blocks = [dataclasses.replace(b, mixer=mixer(b.mixer, mask)) for b in layers_of(m.encoder)]
  return m.with_towers(encoder=dataclasses.replace(m.encoder, segments=segments(blocks)))


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`; logits are scaled only if the head is tied."""
  radius, pool = c.get('local_radius', 127), c.get('global_block_size', 16)
  kinds = {
    'local': lambda m: local(m, radius),
    'transient-global': lambda m: transient(m, radius, pool),
  }
  with_attention = c.choice('encoder_attention_type', kinds, 'local')
  tied = c.get('tie_word_embeddings', True)
  head = Lm(tied, power=-0.5 if c.get('scale_decoder_outputs', tied) else 0.0)
  return with_attention(t5.read_stacks(c, head))


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  encoder_block = (m.encoder or m).segments[0].pattern[0]
  pool = getattr(encoder_block.mixer, 'pool', None)
  kind = {'encoder_attention_type': 'local'} if pool is None else {
    'encoder_attention_type': 'transient-global', 'global_block_size': pool,
  }  # fmt: skip
  return {**t5.write(m), 'local_radius': encoder_block.mixer.mask.size - 1, **kind}


MODELS = {
  'longt5-local-base': Entry(longt5(12, 768, 12, 2048), 247_577_856, '248M', PAPER),
  'longt5-local-large': Entry(longt5(24, 1024, 16, 2816), 783_150_080, '783M', PAPER),
  'longt5-tglobal-base': Entry(tglobal(12, 768, 12, 2048), 247_587_456, '248M', PAPER),
  'longt5-tglobal-large': Entry(tglobal(24, 1024, 16, 2816), 783_175_168, '783M', PAPER),
  'longt5-tglobal-xl': Entry(tglobal(24, 2048, 32, 5120), 2_849_807_360, '3B', PAPER),
}
