"""Checkpoints of ELECTRA generators and discriminators with all of their heads."""

from tfm.model.spec import Model
from tfm.parts.act.gelu import Gelu
from tfm.parts.head.classify import Classify
from tfm.zoo import bert_decoder, electra
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields
from tfm.zoo.weights import bert
from tfm.zoo.weights.family import Family, Names, Top
from tfm.zoo.weights.rules import Whole, renamed
from tfm.zoo.weights.tops import classifier_dropout, n_labels, with_classifier

NAMES: Names = {
  **renamed(bert.NAMES, 'bert.', 'electra.'),
  'embed/project': 'electra.embeddings_project',
  'head/transform': 'generator_predictions.dense',
  'head/norm': 'generator_predictions.LayerNorm',
  'head/bias': Whole('generator_lm_head.bias'),
}


def _discriminator(c: Fields, m: FamilyModel) -> Model:
  return with_classifier(m, Classify(1, 'each', hidden=m.segments[0].pattern[0].ffn.act))


def _sequence(c: Fields, m: Model) -> Model:
  return with_classifier(m, Classify(n_labels(c), hidden=Gelu(), dropout=classifier_dropout(c, m)))


def _choice(c: Fields, m: Model) -> Model:
  c.only(summary_type='first', summary_use_proj=True)
  dropout = c.get('summary_last_dropout', 0.1)
  return with_classifier(
    m, Classify(1, hidden=c.act('summary_activation', 'gelu'), dropout=dropout)
  )


_FOUND = 'discriminator_predictions.dense'
TOPS = {
  'ForPreTraining': Top(
    _discriminator, {'classifier/hidden': _FOUND, 'classifier/out': f'{_FOUND}_prediction'}
  ),
  'ForSequenceClassification': Top(
    _sequence, {'classifier/hidden': 'classifier.dense', 'classifier/out': 'classifier.out_proj'}
  ),
  'ForMultipleChoice': Top(_choice, {'classifier/hidden': 'sequence_summary.summary'}),
  **{name: bert.CLASSES[name] for name in ('ForTokenClassification', 'ForQuestionAnswering')},
  'ForCausalLM': bert.AS_DECODER,
}
FAMILY = Family(
  'Electra', bert_decoder.reader(electra.read), bert_decoder.writer(electra.write), NAMES,
  'electra.', 'ForMaskedLM',
  TOPS, ('generator_lm_head.weight',), (r'position_ids$',),
)  # fmt: skip
