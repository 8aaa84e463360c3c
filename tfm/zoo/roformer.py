"""RoFormer: BERT whose positions are rotations of queries and keys, the first to have them (2021)."""

import dataclasses
from typing import Any

from tfm.model.spec import Model
from tfm.parts.absolute.base import Absolute
from tfm.parts.relative.rope import RoPE
from tfm.zoo import bert
from tfm.zoo.entry import Entry
from tfm.zoo.fields import Fields

PAPER = 'RoFormer: Enhanced Transformer with Rotary Position Embedding, arXiv:2104.09864'


def roformer(depth: int, d: int, heads: int) -> Model:
  """BERT with rotary positions of neighbouring pairs; Chinese vocabulary."""
  return rotated(bert.bert(depth, d, heads, 50_000), 1536, d)


def rotated(spec: Any, length: int, width: int) -> Model:
  """A BERT of rotary positions, at most `length` of them, with embeddings of `width`."""
  (block,) = spec.segments[0].pattern
  mixer = dataclasses.replace(block.mixer, relative=RoPE(layout='interleaved', max_len=length))
  segment = dataclasses.replace(
    spec.segments[0], pattern=(dataclasses.replace(block, mixer=mixer),)
  )
  embed = dataclasses.replace(spec.embed, dim=None if width == spec.d_model else width)
  return dataclasses.replace(spec, segments=(segment,), absolute=Absolute(), embed=embed)


def read(c: Fields) -> Model:
  """The spec of a published config, of a masked language model."""
  c.only(rotary_value=False)
  spec = bert.read(c)
  return rotated(
    spec, c.get('max_position_embeddings', 1536), c.get('embedding_size', spec.d_model)
  )


def write(m: Any) -> dict[str, Any]:
  """The published fields of a spec."""
  return {**bert.write(m), 'embedding_size': m.embed.dim or m.d_model}


MODELS = {'roformer-chinese-base': Entry(roformer(12, 768, 12), 124_099_664, '124M', PAPER)}
