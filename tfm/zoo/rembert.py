"""RemBERT: a multilingual BERT whose input and output embeddings have widths of their own (2020)."""

import dataclasses
from typing import Any

from tfm.model.spec import Model
from tfm.parts.act.base import Act
from tfm.parts.act.gelu import Gelu
from tfm.parts.head.lm import Lm, Transform
from tfm.zoo import bert
from tfm.zoo.entry import Entry
from tfm.zoo.fields import Fields

PAPER = 'Rethinking Embedding Coupling in Pre-trained Language Models, arXiv:2010.12821'


def rembert(layers: int, d: int, heads: int) -> Model:
  """BERT with token embeddings of width 256 and an untied head of width 1664; SentencePiece
  vocabulary.
  """
  return uncoupled(bert.bert(layers, d, heads, 250_300), 256, 1664, Gelu())


def uncoupled(spec: Any, width: int, out: int, act: Act) -> Model:
  """Return a BERT with token embeddings of `width` and a head of width `out` with a weight of its
  own.
  """
  head = Lm(tied=False, bias=True, transform=Transform(act, spec.norm, dim=out))
  embed = dataclasses.replace(spec.embed, dim=width)
  return dataclasses.replace(spec, embed=embed, heads={**spec.heads, 'lm': head})


def read(c: Fields) -> Model:
  """Return the spec of a published config, with a masked-LM head."""
  c.skip('tie_word_embeddings', 'classifier_dropout_prob')
  width, out = c.get('input_embedding_size', 256), c.get('output_embedding_size', 1664)
  return uncoupled(
    bert.read(c.changed(tie_word_embeddings=True), drop=0.0),
    width,
    out,
    c.act('hidden_act', 'gelu'),
  )


def write(m: Any) -> dict[str, Any]:
  """Return the published fields of a spec."""
  out = {} if m.lm is None else {'output_embedding_size': m.lm.transform.dim}
  return {**bert.write(m), 'input_embedding_size': m.embed.dim, **out}


MODELS = {'rembert': Entry(rembert(32, 1152, 18), 993_263_548, '1B', PAPER)}
