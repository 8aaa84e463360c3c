"""MPNet (Song et al., 2020): RoBERTa with T5's relative position buckets, shared by all layers."""

import dataclasses
from typing import Any

from tfm.core import errors
from tfm.model.spec import Model
from tfm.parts.relative.t5 import T5Bias
from tfm.zoo import bert, roberta
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields

PAPER = 'MPNet: Masked and Permuted Pre-training for Language Understanding, arXiv:2004.09297'

#: Fixed by the family: the padding id, and T5's relative position buckets.
_PAD, _RELATIVE = 1, T5Bias(32, 128)


def mpnet(depth: int, d: int, heads: int) -> Model:
  """Return a RoBERTa with relative position buckets and without token types.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.

  Returns:
    The spec of the model.
  """
  return with_relative(roberta.roberta(depth, d, heads, 30_527))


def with_relative(spec: Any) -> Model:
  """Return a RoBERTa with relative position buckets and without token types."""
  embed = dataclasses.replace(spec.embed, types=0)
  return dataclasses.replace(spec, embed=embed, shared_relative=_RELATIVE)


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`, with a masked-LM head."""
  c.only(relative_attention_num_buckets=_RELATIVE.buckets)
  length = c.get('max_position_embeddings', 512) - _PAD - 1
  return with_relative(roberta.with_position_offset(bert.read(c), length, _PAD))


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  if m.shared_relative != _RELATIVE:
    raise errors.UserError(
      f'export: shared_relative is {m.shared_relative}. Expected {_RELATIVE} for MPNet.'
    )
  fields = roberta.write(m)
  del fields['type_vocab_size'], fields['pad_token_id']
  return {**fields, 'relative_attention_num_buckets': _RELATIVE.buckets}


MODELS = {'mpnet-base': Entry(mpnet(12, 768, 12), 109_518_527, '110M', PAPER)}
