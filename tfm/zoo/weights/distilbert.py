"""Checkpoints of DistilBERT with all of its heads."""

from tfm.model.spec import Model
from tfm.parts.act.relu import Relu
from tfm.parts.head.classify import Classify
from tfm.zoo import distilbert
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields
from tfm.zoo.weights.family import Family, Names, Top
from tfm.zoo.weights.rules import Whole
from tfm.zoo.weights.tops import n_labels, with_classifier

_LAYER = 'distilbert.transformer.layer.*'
NAMES: Names = {
  'embed/table': Whole('distilbert.embeddings.word_embeddings.weight'),
  'embed/norm': 'distilbert.embeddings.LayerNorm',
  'absolute': 'distilbert.embeddings.position_embeddings',
  '*/mixer/q': f'{_LAYER}.attention.q_lin',
  '*/mixer/k': f'{_LAYER}.attention.k_lin',
  '*/mixer/v': f'{_LAYER}.attention.v_lin',
  '*/mixer/o': f'{_LAYER}.attention.out_lin',
  '*/mixer_norm': f'{_LAYER}.sa_layer_norm',
  '*/ffn/up': f'{_LAYER}.ffn.lin1',
  '*/ffn/down': f'{_LAYER}.ffn.lin2',
  '*/ffn_norm': f'{_LAYER}.output_layer_norm',
  'head/transform': 'vocab_transform',
  'head/norm': 'vocab_layer_norm',
  'head/bias': Whole('vocab_projector.bias'),
  'classifier/hidden': 'pre_classifier',
  'classifier/out': 'classifier',
}


def _sequence(c: Fields, m: Model, labels: int) -> Model:
  return with_classifier(
    m, Classify(labels, hidden=Relu(), dropout=c.get('seq_classif_dropout', 0.2))
  )


def _tokens(m: Model, labels: int, dropout: float) -> Model:
  return with_classifier(m, Classify(labels, 'each', dropout=dropout))


def _embed_dropout(m: FamilyModel) -> float:
  found: float = m.embed.dropout
  return found


TOPS = {
  'ForSequenceClassification': Top(lambda c, m: _sequence(c, m, n_labels(c))),
  'ForMultipleChoice': Top(lambda c, m: _sequence(c, m, 1)),
  'ForTokenClassification': Top(lambda c, m: _tokens(m, n_labels(c), _embed_dropout(m))),
  'ForQuestionAnswering': Top(
    lambda c, m: _tokens(m, 2, c.get('qa_dropout', 0.1)), {'classifier/out': 'qa_outputs'}
  ),
}  # fmt: skip
FAMILY = Family(
  'DistilBert', distilbert.read, distilbert.write, NAMES, 'distilbert.', 'ForMaskedLM', TOPS,
  ('vocab_projector.weight',), (r'position_ids$',),
)  # fmt: skip
