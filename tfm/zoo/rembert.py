"""RemBERT (Chung et al., 2020): a multilingual BERT with decoupled input and output embeddings."""

import dataclasses
from typing import Any

from tfm.model.spec import Model
from tfm.parts.act.base import Act
from tfm.parts.act.gelu import Gelu
from tfm.parts.head.lm import Lm, Transform
from tfm.zoo import bert
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields

PAPER = 'Rethinking Embedding Coupling in Pre-trained Language Models, arXiv:2010.12821'


def rembert(layers: int, d: int, heads: int) -> Model:
  """Return a BERT with token embeddings of width 256 and an untied head of width 1664.

  Args:
    layers: number of layers of each stack.
    d: width of the residual stream.
    heads: number of attention heads.

  Returns:
    The spec of the model.
  """
  return uncoupled(bert.bert(layers, d, heads, 250_300), 256, 1664, Gelu())


def uncoupled(spec: Any, width: int, out: int, act: Act) -> Model:
  """Return a BERT with an untied head and separate widths of input and output embeddings.

  Args:
    spec: spec of the model.
    width: width of the token embeddings.
    out: width of the head.
    act: activation of the head.

  Returns:
    The spec of the model.
  """
  head = Lm(tied=False, bias=True, transform=Transform(act, spec.norm, dim=out))
  embed = dataclasses.replace(spec.embed, dim=width)
  return dataclasses.replace(spec, embed=embed, heads={**spec.heads, 'lm': head})


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`, with a masked-LM head."""
  c.skip('tie_word_embeddings', 'classifier_dropout_prob')
  width, out = c.get('input_embedding_size', 256), c.get('output_embedding_size', 1664)
  return uncoupled(
    bert.read(c.changed(tie_word_embeddings=True), drop=0.0),
    width,
    out,
    c.act('hidden_act', 'gelu'),
  )


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  out = {} if m.lm is None else {'output_embedding_size': m.lm.transform.dim}
  return {**bert.write(m), 'input_embedding_size': m.embed.dim, **out}


MODELS = {'rembert': Entry(rembert(32, 1152, 18), 993_263_548, '1B', PAPER)}
