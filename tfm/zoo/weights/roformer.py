"""Checkpoints of RoFormer with its heads, except multiple choice.

Its multiple-choice head pools the last position, padding included.
"""

import numpy as np

from tfm.model.spec import Model
from tfm.parts.head.classify import Classify
from tfm.zoo import bert_decoder, roformer
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields
from tfm.zoo.weights import bert
from tfm.zoo.weights.family import Family, Names, Top
from tfm.zoo.weights.rules import renamed
from tfm.zoo.weights.tops import classifier_dropout, n_labels, with_classifier

NAMES: Names = {
  **renamed(bert.NAMES, 'bert.', 'roformer.'),
  'embed/project': 'roformer.embeddings_project',
}


def _sequence(c: Fields, m: FamilyModel) -> Model:
  act = m.segments[0].pattern[0].ffn.act
  return with_classifier(m, Classify(n_labels(c), hidden=act, dropout=classifier_dropout(c, m)))


TOPS = {
  'ForSequenceClassification': Top(
    _sequence, {'classifier/hidden': 'classifier.dense', 'classifier/out': 'classifier.out_proj'}
  ),
  **{name: bert.CLASSES[name] for name in ('ForTokenClassification', 'ForQuestionAnswering')},
  'ForCausalLM': bert.AS_DECODER,
}


def _waves(m: FamilyModel) -> dict[str, np.ndarray]:
  """Return the table of sines and cosines that checkpoints store."""
  length, size = m.max_positions, m.segments[0].pattern[0].mixer.size(m.d_model)
  angle = np.arange(length)[:, None] * 10_000.0 ** (-np.arange(0, size, 2) / size)
  table = np.concatenate([np.sin(angle), np.cos(angle)], 1).astype(np.float32)
  return {'roformer.encoder.embed_positions.weight': table}


FAMILY = Family(
  'RoFormer', bert_decoder.reader(roformer.read), bert_decoder.writer(roformer.write), NAMES,
  'roformer.',
  'ForMaskedLM', TOPS, ('cls.predictions.decoder.weight',),
  (r'position_ids$', r'^cls\.predictions\.decoder\.bias$'), fixed=_waves,
)  # fmt: skip
