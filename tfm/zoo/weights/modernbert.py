"""Checkpoints of ModernBERT: fused q, k and v, fused gate and up, one transform for all heads."""

from typing import Any, Literal

from tfm.model.spec import Model
from tfm.parts.head.classify import Classify
from tfm.zoo import modernbert
from tfm.zoo.fields import Fields
from tfm.zoo.weights.family import Family, Names, Top
from tfm.zoo.weights.rules import Fused, Whole
from tfm.zoo.weights.tops import n_labels, with_classifier

_LAYER = 'model.layers.*'
NAMES: Names = {
  'embed/table': Whole('model.embeddings.tok_embeddings.weight'),
  'embed/norm': 'model.embeddings.norm',
  ('*/mixer/q', '*/mixer/k', '*/mixer/v'): Fused(f'{_LAYER}.attn.Wqkv'),
  '*/mixer/o': f'{_LAYER}.attn.Wo',
  '*/mixer_norm': f'{_LAYER}.attn_norm',
  ('*/ffn/gate', '*/ffn/up'): Fused(f'{_LAYER}.mlp.Wi'),
  '*/ffn/down': f'{_LAYER}.mlp.Wo',
  '*/ffn_norm': f'{_LAYER}.mlp_norm',
  'norm': 'model.final_norm',
  'head/transform': 'head.dense',
  'head/norm': 'head.norm',
  'head/head': 'decoder',
  'head/bias': Whole('decoder.bias'),
  'classifier/hidden': 'head.dense',
  'classifier/norm': 'head.norm',
  'classifier/out': 'classifier',
}


def _with_head(c: Fields, m: Model, labels: int, pick: Literal['first', 'mean', 'each']) -> Model:
  top: Any = m.lm and m.lm.transform
  dropout = c.get('classifier_dropout', 0.0)
  head = Classify(labels, pick, top.act, dropout=dropout, hidden_bias=top.bias, norm=top.norm)
  return with_classifier(m, head)


def _sequence(c: Fields, m: Model, labels: int) -> Model:
  return _with_head(
    c, m, labels, c.choice('classifier_pooling', {'cls': 'first', 'mean': 'mean'}, 'cls')
  )


TOPS = {
  'ForSequenceClassification': Top(lambda c, m: _sequence(c, m, n_labels(c))),
  'ForMultipleChoice': Top(lambda c, m: _sequence(c, m, 1)),
  'ForTokenClassification': Top(lambda c, m: _with_head(c, m, n_labels(c), 'each')),
  'ForQuestionAnswering': Top(lambda c, m: _with_head(c, m, 2, 'each')),
}
FAMILY = Family(
  'ModernBert', modernbert.read, modernbert.write, NAMES, 'model.', 'ForMaskedLM', TOPS,
  ('decoder.weight',),
)  # fmt: skip
