"""Checkpoints of BERT with all of its heads."""

from tfm.model.spec import Model
from tfm.parts.act.tanh import Tanh
from tfm.parts.head.classify import Classify
from tfm.zoo import bert, bert_decoder
from tfm.zoo.fields import Fields
from tfm.zoo.weights.family import Family, Names, Top
from tfm.zoo.weights.rules import Whole
from tfm.zoo.weights.tops import classifier_dropout, n_labels, with_classifier

NAMES: Names = {
  'embed/table': Whole('bert.embeddings.word_embeddings.weight'),
  'embed/types': Whole('bert.embeddings.token_type_embeddings.weight'),
  'embed/norm': 'bert.embeddings.LayerNorm',
  'absolute': 'bert.embeddings.position_embeddings',
  '*/mixer/q': 'bert.encoder.layer.*.attention.self.query',
  '*/mixer/k': 'bert.encoder.layer.*.attention.self.key',
  '*/mixer/v': 'bert.encoder.layer.*.attention.self.value',
  '*/mixer/o': 'bert.encoder.layer.*.attention.output.dense',
  '*/mixer_norm': 'bert.encoder.layer.*.attention.output.LayerNorm',
  '*/ffn/up': 'bert.encoder.layer.*.intermediate.dense',
  '*/ffn/down': 'bert.encoder.layer.*.output.dense',
  '*/ffn_norm': 'bert.encoder.layer.*.output.LayerNorm',
  'head/transform': 'cls.predictions.transform.dense',
  'head/norm': 'cls.predictions.transform.LayerNorm',
  'head/head': 'cls.predictions.decoder',
  'head/bias': Whole('cls.predictions.bias'),
  'classifier/hidden': 'bert.pooler.dense',
  'classifier/out': 'classifier',
}


def _pooled(c: Fields, spec: Model, labels: int) -> Classify:
  return Classify(labels, hidden=Tanh(), dropout=classifier_dropout(c, spec))


def _next(c: Fields, spec: Model) -> Classify:
  return Classify(2, hidden=Tanh())


def _tokens(c: Fields, spec: Model) -> Model:
  return with_classifier(spec, Classify(n_labels(c), 'each', dropout=classifier_dropout(c, spec)))


_NEXT: Names = {'classifier/out': 'cls.seq_relationship'}
#: Classes that many encoders have.
CLASSES = {
  'ForSequenceClassification': Top(lambda c, m: with_classifier(m, _pooled(c, m, n_labels(c)))),
  'ForMultipleChoice': Top(lambda c, m: with_classifier(m, _pooled(c, m, 1))),
  'ForTokenClassification': Top(_tokens),
  'ForQuestionAnswering': Top(
    lambda c, m: with_classifier(m, Classify(2, 'each')), {'classifier/out': 'qa_outputs'}
  ),
  'Model': Top(lambda c, m: with_classifier(m, _pooled(c, m, 0))),
}
TOPS = {
  **CLASSES,
  'ForNextSentencePrediction': Top(lambda c, m: with_classifier(m, _next(c, m)), _NEXT),
  'ForPreTraining': Top(lambda c, m: m.with_heads(classify=_next(c, m)), _NEXT),
}
#: The decoder class: the masked-LM head on layers with causal masks.
AS_DECODER = Top(lambda c, m: m)
IGNORED = (
  r'position_ids$', r'^cls\.predictions\.decoder\.bias$', r'pooler\.dense\.',
  r'^cls\.seq_relationship\.',
)  # fmt: skip
FAMILY = Family(
  'Bert', bert_decoder.reader(bert.read), bert_decoder.writer(bert.write), NAMES, 'bert.',
  'ForMaskedLM',
  {**TOPS, 'LMHeadModel': AS_DECODER}, ('cls.predictions.decoder.weight',), IGNORED,
)  # fmt: skip
