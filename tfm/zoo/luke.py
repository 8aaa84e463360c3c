"""LUKE (Yamada et al., 2020): RoBERTa with entity inputs, of which tfm supports the text only."""

import dataclasses

from tfm.model.spec import Model
from tfm.zoo import roberta
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields

PAPER = (
  'LUKE: Deep Contextualized Entity Representations with Entity-aware Self-attention, '
  'arXiv:2010.01057'
)


def luke(layers: int, d: int, heads: int, vocab: int) -> Model:
  """Return a RoBERTa with an untied masked-LM head.

  Args:
    layers: number of layers of each stack.
    d: width of the residual stream.
    heads: number of attention heads.
    vocab: size of the vocabulary.

  Returns:
    The spec of the model.
  """
  return untied_head(roberta.roberta(layers, d, heads, vocab))


def untied_head(spec: FamilyModel) -> Model:
  """Return a RoBERTa with an untied head."""
  return spec.with_heads(lm=dataclasses.replace(spec.lm, tied=False))


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`, with its masked-LM head.

  Note:
    There is no input `entity_ids`. Without entities, the outputs equal those of transformers.
  """
  c.skip('entity_vocab_size', 'entity_emb_size', 'use_entity_aware_attention', 'bert_model_name')
  c.skip('tie_word_embeddings')  # which ties the entity table only
  return untied_head(roberta.read(c.changed(tie_word_embeddings=True)))


MODELS = {
  'luke-base': Entry(luke(12, 768, 12, 50_267), 163_304_027, '163M', PAPER),
  'luke-large': Entry(luke(24, 1024, 16, 50_267), 406_887_515, '407M', PAPER),
}
