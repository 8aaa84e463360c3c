"""RoFormer (Su et al., 2021): BERT with rotary position embeddings, their first use."""

import dataclasses
from typing import Any

from tfm.model.spec import Model
from tfm.parts.absolute.base import Absolute
from tfm.parts.relative.rope import RoPE
from tfm.zoo import bert
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields

PAPER = 'RoFormer: Enhanced Transformer with Rotary Position Embedding, arXiv:2104.09864'


def roformer(depth: int, d: int, heads: int) -> Model:
  """Return a BERT with interleaved RoPE and a Chinese vocabulary.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.

  Returns:
    The spec of the model.
  """
  return rotated(bert.bert(depth, d, heads, 50_000), 1536, d)


def rotated(spec: Any, length: int, width: int) -> Model:
  """Return a BERT with interleaved RoPE in place of learned positions.

  Args:
    spec: spec of the model.
    length: largest number of tokens.
    width: width of the token embeddings.

  Returns:
    The spec of the model.
  """
  (block,) = spec.segments[0].pattern
  mixer = dataclasses.replace(block.mixer, relative=RoPE(layout='interleaved', max_len=length))
  segment = dataclasses.replace(
    spec.segments[0], pattern=(dataclasses.replace(block, mixer=mixer),)
  )
  embed = dataclasses.replace(spec.embed, dim=None if width == spec.d_model else width)
  return dataclasses.replace(spec, segments=(segment,), absolute=Absolute(), embed=embed)


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`, with a masked-LM head."""
  c.only(rotary_value=False)
  spec = bert.read(c)
  return rotated(
    spec, c.get('max_position_embeddings', 1536), c.get('embedding_size', spec.d_model)
  )


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  return {**bert.write(m), 'embedding_size': m.embed.dim or m.d_model}


MODELS = {'roformer-chinese-base': Entry(roformer(12, 768, 12), 124_099_664, '124M', PAPER)}
