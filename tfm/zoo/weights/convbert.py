"""Checkpoints of ConvBERT: ELECTRA's names, and names of the convolutions.

The multiple-choice class is not supported: it pools the last position, which may be padding.
"""

from collections.abc import Sequence
import dataclasses
import math

from tfm.model.spec import Model
from tfm.parts.head.classify import Classify
from tfm.zoo import convbert
from tfm.zoo.fields import Fields
from tfm.zoo.weights import bert, electra
from tfm.zoo.weights.family import Family, Names, Top
from tfm.zoo.weights.rules import Depthwise, Shape, Slot, Whole, renamed
from tfm.zoo.weights.squeezebert import Pointwise
from tfm.zoo.weights.tops import classifier_dropout, n_labels, with_classifier


@dataclasses.dataclass(frozen=True)
class Column(Whole):
  """A vector that checkpoints store as a matrix with one column."""

  def shape(self, slots: Sequence[Slot]) -> Shape:
    return math.prod(slots[0].shape), 1


_LAYER = 'convbert.encoder.layer.*.attention.self'
NAMES: Names = {
  **renamed(electra.NAMES, 'electra.', 'convbert.'),
  '*/mixer/taps': Depthwise(f'{_LAYER}.key_conv_attn_layer.depthwise'),
  '*/mixer/span': Pointwise(f'{_LAYER}.key_conv_attn_layer.pointwise'),
  '*/mixer/span/bias': Column(f'{_LAYER}.key_conv_attn_layer.bias'),
  '*/mixer/weights': f'{_LAYER}.conv_kernel_layer',
  '*/mixer/values': f'{_LAYER}.conv_out_layer',
}


def _row(c: Fields, m: Model) -> Model:
  return with_classifier(
    m, Classify(n_labels(c), hidden=c.act('hidden_act', 'gelu'), dropout=classifier_dropout(c, m))
  )


TOPS = {
  'ForSequenceClassification': Top(
    _row, {'classifier/hidden': 'classifier.dense', 'classifier/out': 'classifier.out_proj'}
  ),
  **{name: bert.CLASSES[name] for name in ('ForTokenClassification', 'ForQuestionAnswering')},
}
FAMILY = Family(
  'ConvBert', convbert.read, convbert.write, NAMES, 'convbert.', 'ForMaskedLM', TOPS,
  ('generator_lm_head.weight',), (r'position_ids$',),
)  # fmt: skip
