"""Checkpoints of ALBERT with all of its heads; layers are numbered by group and within a group."""

from tfm.model.spec import Model
from tfm.parts.act.tanh import Tanh
from tfm.parts.head.classify import Classify
from tfm.zoo import albert
from tfm.zoo.fields import Fields
from tfm.zoo.weights.family import Family, Names, Top
from tfm.zoo.weights.rules import Whole
from tfm.zoo.weights.tops import n_labels, with_classifier

_LAYER = 'albert.encoder.albert_layer_groups.*.albert_layers.*'
NAMES: Names = {
  'embed/table': Whole('albert.embeddings.word_embeddings.weight'),
  'embed/types': Whole('albert.embeddings.token_type_embeddings.weight'),
  'embed/norm': 'albert.embeddings.LayerNorm',
  'embed/project': 'albert.encoder.embedding_hidden_mapping_in',
  'absolute': 'albert.embeddings.position_embeddings',
  '*/mixer/q': f'{_LAYER}.attention.query',
  '*/mixer/k': f'{_LAYER}.attention.key',
  '*/mixer/v': f'{_LAYER}.attention.value',
  '*/mixer/o': f'{_LAYER}.attention.dense',
  '*/mixer_norm': f'{_LAYER}.attention.LayerNorm',
  '*/ffn/up': f'{_LAYER}.ffn',
  '*/ffn/down': f'{_LAYER}.ffn_output',
  '*/ffn_norm': f'{_LAYER}.full_layer_layer_norm',
  'head/transform': 'predictions.dense',
  'head/norm': 'predictions.LayerNorm',
  'head/bias': Whole('predictions.bias'),
  'classifier/hidden': 'albert.pooler',
  'classifier/out': 'classifier',
}


def _pooled(c: Fields, labels: int) -> Classify:
  return Classify(labels, hidden=Tanh(), dropout=c.get('classifier_dropout_prob', 0.1))


def _tokens(c: Fields, m: Model) -> Model:
  return with_classifier(
    m, Classify(n_labels(c), 'each', dropout=c.get('classifier_dropout_prob', 0.1))
  )


TOPS = {
  'ForPreTraining': Top(
    lambda c, m: m.with_heads(classify=_pooled(c, 2)),
    {'classifier/out': 'sop_classifier.classifier'},
  ),
  'ForSequenceClassification': Top(lambda c, m: with_classifier(m, _pooled(c, n_labels(c)))),
  'ForMultipleChoice': Top(lambda c, m: with_classifier(m, _pooled(c, 1))),
  'ForTokenClassification': Top(_tokens),
  'ForQuestionAnswering': Top(
    lambda c, m: with_classifier(m, Classify(2, 'each')), {'classifier/out': 'qa_outputs'}
  ),
  'Model': Top(lambda c, m: with_classifier(m, _pooled(c, 0))),
}
FAMILY = Family(
  'Albert', albert.read, albert.write, NAMES, 'albert.', 'ForMaskedLM', TOPS,
  ('predictions.decoder.weight',),
  (r'position_ids$', r'^predictions\.decoder\.bias$', r'pooler\.', r'^sop_classifier\.'),
)  # fmt: skip
