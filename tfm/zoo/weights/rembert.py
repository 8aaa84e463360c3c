"""Checkpoints of RemBERT with all of its heads."""

from tfm.model.spec import Model
from tfm.parts.act.tanh import Tanh
from tfm.parts.head.classify import Classify
from tfm.zoo import rembert
from tfm.zoo.fields import Fields
from tfm.zoo.weights import bert
from tfm.zoo.weights.family import Family, Names, Top
from tfm.zoo.weights.rules import Whole, renamed
from tfm.zoo.weights.tops import n_labels, with_classifier

NAMES: Names = {
  **renamed(bert.NAMES, 'bert.', 'rembert.'),
  'embed/project': 'rembert.encoder.embedding_hidden_mapping_in',
  'head/transform': 'cls.predictions.dense',
  'head/norm': 'cls.predictions.LayerNorm',
  'head/bias': Whole('cls.predictions.decoder.bias'),
}


def _dropout(c: Fields) -> float:
  found: float = c.get('classifier_dropout_prob', 0.1)
  return found


def _sequence(c: Fields, m: Model, labels: int) -> Model:
  return with_classifier(m, Classify(labels, hidden=Tanh(), dropout=_dropout(c)))


TOPS = {
  'ForSequenceClassification': Top(lambda c, m: _sequence(c, m, n_labels(c))),
  'ForMultipleChoice': Top(lambda c, m: _sequence(c, m, 1)),
  'ForTokenClassification': Top(
    lambda c, m: with_classifier(m, Classify(n_labels(c), 'each', dropout=_dropout(c)))
  ),
  **{name: bert.CLASSES[name] for name in ('ForQuestionAnswering', 'Model')},
}  # fmt: skip
FAMILY = Family(
  'RemBert', rembert.read, rembert.write, NAMES, 'rembert.', 'ForMaskedLM', TOPS, (),
  (r'position_ids$', r'pooler\.dense\.'),
)  # fmt: skip
