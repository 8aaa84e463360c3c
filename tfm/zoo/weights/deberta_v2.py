"""Checkpoints of DeBERTa v2 with all of its heads."""

from tfm.model.spec import Model
from tfm.parts.head.classify import Classify
from tfm.zoo import deberta_v2
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields
from tfm.zoo.weights import bert
from tfm.zoo.weights.family import Family, Names, Top
from tfm.zoo.weights.rules import Taps, renamed
from tfm.zoo.weights.tops import n_labels, with_classifier

_LOOK = 'deberta.encoder.layer.*.attention.self'
NAMES: Names = {
  **renamed(bert.NAMES, 'bert.', 'deberta.'),
  '*/mixer/q': f'{_LOOK}.query_proj',
  '*/mixer/k': f'{_LOOK}.key_proj',
  '*/mixer/v': f'{_LOOK}.value_proj',
  '*/mixer/distance_q': f'{_LOOK}.pos_query_proj',
  '*/mixer/distance_k': f'{_LOOK}.pos_key_proj',
  'common': 'deberta.encoder.rel_embeddings',
  'common/norm': 'deberta.encoder.LayerNorm',
  '*/aside': Taps('deberta.encoder.conv.conv'),
  '*/aside_norm': 'deberta.encoder.conv.LayerNorm',
  'classifier/hidden': 'pooler.dense',
}


def _sequence(c: Fields, m: FamilyModel, labels: int) -> Model:
  act, dropout = c.act('pooler_hidden_act', 'gelu'), c.get('cls_dropout', m.embed.dropout)
  return with_classifier(m, Classify(labels, hidden=act, dropout=dropout))


TOPS = {
  'ForSequenceClassification': Top(lambda c, m: _sequence(c, m, n_labels(c))),
  'ForMultipleChoice': Top(lambda c, m: _sequence(c, m, 1)),
  **{name: bert.CLASSES[name] for name in ('ForTokenClassification', 'ForQuestionAnswering')},
}
#: Names of the head with `legacy` false -> names with `legacy` true, which are written.
LEGACY = {
  'lm_predictions.lm_head.dense': 'cls.predictions.transform.dense',
  'lm_predictions.lm_head.LayerNorm': 'cls.predictions.transform.LayerNorm',
  'lm_predictions.lm_head': 'cls.predictions',
}
FAMILY = Family(
  'DebertaV2', deberta_v2.read, deberta_v2.write, NAMES, 'deberta.', 'ForMaskedLM', TOPS,
  ('cls.predictions.decoder.weight',),
  (r'position_ids$', r'^cls\.predictions\.decoder\.bias$', r'^mask_predictions\.'), aliases=LEGACY,
)  # fmt: skip
