"""ELECTRA (Clark et al., 2020): BERT with narrow embeddings, as generator and discriminator."""

import dataclasses
from typing import Any

from tfm.model.spec import Model
from tfm.zoo import bert
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields
from tfm.zoo.roberta import gelu_head

PAPER = (
  'ELECTRA: Pre-training Text Encoders as Discriminators Rather Than Generators, arXiv:2003.10555'
)


def electra(depth: int, d: int, heads: int, width: int) -> Model:
  """Return a BERT with narrow token embeddings and a masked-LM head (a generator).

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    width: width of the token embeddings.

  Returns:
    The spec of the model.
  """
  return narrow(bert.bert(depth, d, heads), width)


def narrow(spec: Any, width: int) -> Model:
  """Return a BERT with narrow token embeddings and erf GELU in its head.

  The embeddings are projected if `width` is not the width of the model.
  """
  embed = dataclasses.replace(spec.embed, dim=None if width == spec.d_model else width)
  return dataclasses.replace(spec, embed=embed, heads={**spec.heads, 'lm': gelu_head(spec.norm)})


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`, with a masked-LM head."""
  c.skip(
    'summary_type', 'summary_use_proj', 'summary_activation', 'summary_last_dropout'
  )  # of the multiple-choice class
  return narrow(bert.read(c), c.get('embedding_size', 128))


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  return {**bert.write(m), 'embedding_size': m.embed.dim or m.d_model}


MODELS = {
  'electra-small': Entry(electra(12, 256, 4, 128), 13_546_682, '14M', PAPER),
  'electra-base': Entry(electra(12, 768, 12, 768), 109_514_298, '110M', PAPER),
  'electra-large': Entry(electra(24, 1024, 16, 1024), 335_174_458, '335M', PAPER),
}
