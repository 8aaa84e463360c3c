"""Heads of classes that many families share."""

import dataclasses

from tfm.model.spec import Model
from tfm.parts.head.classify import Classify
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields
from tfm.zoo.weights.family import Top


def n_labels(c: Fields) -> int:
  """Return the number of classes of a config's classifier."""
  return c.labels


def with_classifier(spec: FamilyModel, classifier: Classify) -> Model:
  """Return `spec` with a classifier in place of its language-model head."""
  found: Model = spec.with_heads(lm=None, classify=classifier)
  return found


def classifier_dropout(c: Fields, spec: FamilyModel) -> float:
  """Return the dropout rate before an encoder's classifier."""
  found: float = c.get('classifier_dropout', spec.embed.dropout)
  return found


def encoder_alone(spec: Model) -> Model:
  """Return the encoder of an encoder-decoder as a model."""
  source = spec.tower('encoder')
  fields = {f.name: getattr(source, f.name) for f in dataclasses.fields(source)}
  return Model(**fields, init=spec.init)


def _on_last(c: Fields, spec: Model) -> Model:
  return with_classifier(spec, Classify(n_labels(c), 'last', bias=False))


def _on_each(c: Fields, spec: Model) -> Model:
  dropout = c.get('classifier_dropout', c.get('hidden_dropout', 0.1))
  return with_classifier(spec, Classify(n_labels(c), 'each', dropout=dropout))


def _spans(c: Fields, spec: Model) -> Model:
  return with_classifier(spec, Classify(2, 'each'))


#: Classifiers of decoders: of the last token (without bias) and of each token, both named `score`.
DECODER = {
  'ForSequenceClassification': Top(_on_last, {'classifier/out': 'score'}),
  'ForTokenClassification': Top(_on_each, {'classifier/out': 'score'}),
}

#: Classifiers of GPT's relatives, with another name for tokens, and question answering.
GPT = {
  'ForSequenceClassification': DECODER['ForSequenceClassification'],
  'ForTokenClassification': Top(_on_each, {'classifier/out': 'classifier'}),
  'ForQuestionAnswering': Top(_spans, {'classifier/out': 'qa_outputs'}),
}
