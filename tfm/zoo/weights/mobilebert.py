"""Checkpoints of MobileBERT with all of its heads."""

from typing import Any

from tfm.model.spec import Model
from tfm.parts.act.tanh import Tanh
from tfm.parts.head.classify import Classify
from tfm.zoo import mobilebert
from tfm.zoo.fields import Fields
from tfm.zoo.weights import bert
from tfm.zoo.weights.family import Family, Names, Top
from tfm.zoo.weights.rules import Conv, renamed
from tfm.zoo.weights.tops import classifier_dropout, n_labels, with_classifier

_LAYER = 'mobilebert.encoder.layer.*'
_SHARED: Names = {
  **{
    n: x
    for n, x in renamed(bert.NAMES, 'bert.', 'mobilebert.').items()
    if not str(n).startswith('*')
  },
  'embed/project': 'mobilebert.embeddings.embedding_transformation',
  'head/rest': Conv('cls.predictions.dense'),
  '*/mixer/reduce': f'{_LAYER}.bottleneck.input.dense',
  '*/mixer/reduce_norm': f'{_LAYER}.bottleneck.input.LayerNorm',
  '*/mixer/share': f'{_LAYER}.bottleneck.attention.dense',
  '*/mixer/share_norm': f'{_LAYER}.bottleneck.attention.LayerNorm',
  '*/mixer/attention/q': f'{_LAYER}.attention.self.query',
  '*/mixer/attention/k': f'{_LAYER}.attention.self.key',
  '*/mixer/attention/v': f'{_LAYER}.attention.self.value',
  '*/mixer/attention/o': f'{_LAYER}.attention.output.dense',
  '*/mixer/attention_norm': f'{_LAYER}.attention.output.LayerNorm',
  '*/mixer/expand': f'{_LAYER}.output.bottleneck.dense',
  '*/mixer_norm': f'{_LAYER}.output.bottleneck.LayerNorm',
}


def _names(spec: Model) -> Names:
  """Return the tensor names; the last feed-forward of a layer is named differently."""
  mixer: Any = spec.segments[0].pattern[0].mixer
  names = dict(_SHARED)
  for i in range(mixer.ffns):
    last = i == mixer.ffns - 1
    prefix = _LAYER if last else f'{_LAYER}.ffn.{i}'
    names |= {
      f'*/mixer/ffn_{i}/up': f'{prefix}.intermediate.dense',
      f'*/mixer/ffn_{i}/down': f'{prefix}.output.dense',
      f'*/mixer/ffn_{i}_norm': f'{prefix}.output.LayerNorm',
    }
  return names


def _pooled(c: Fields, spec: Model, labels: int) -> Classify:
  hidden = Tanh() if c.get('classifier_activation', True) else None
  return Classify(labels, hidden=hidden, dropout=classifier_dropout(c, spec))


def _next(c: Fields, spec: Model) -> Classify:
  return Classify(2, hidden=Tanh() if c.get('classifier_activation', True) else None)


_NEXT: Names = {'classifier/out': 'cls.seq_relationship'}
TOPS = {
  **bert.CLASSES,
  'ForSequenceClassification': Top(lambda c, m: with_classifier(m, _pooled(c, m, n_labels(c)))),
  'ForMultipleChoice': Top(lambda c, m: with_classifier(m, _pooled(c, m, 1))),
  'Model': Top(lambda c, m: with_classifier(m, _pooled(c, m, 0))),
  'ForNextSentencePrediction': Top(lambda c, m: with_classifier(m, _next(c, m)), _NEXT),
  'ForPreTraining': Top(lambda c, m: m.with_heads(classify=_next(c, m)), _NEXT),
}
FAMILY = Family(
  'MobileBert', mobilebert.read, mobilebert.write, _names, 'mobilebert.', 'ForMaskedLM', TOPS,
  ('cls.predictions.decoder.weight',), (*bert.IGNORED, r'bottleneck\.attention\.'),
)  # fmt: skip
