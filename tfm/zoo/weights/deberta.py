"""Checkpoints of DeBERTa with all of its heads: fused q, k and v with separate biases."""

from collections.abc import Sequence
import dataclasses
import math

from tfm.zoo import deberta
from tfm.zoo.weights import bert, deberta_v2
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import ByHead, Shape, Slot, Whole, renamed


@dataclasses.dataclass(frozen=True)
class _Flat(Whole):
  """A tensor with this full name and one axis."""

  def shape(self, slots: Sequence[Slot]) -> Shape:
    return (math.prod(slots[0].shape),)


_LAYER = 'deberta.encoder.layer.*.attention.self'
NAMES: Names = {
  **renamed(bert.NAMES, 'bert.', 'deberta.'),
  ('*/mixer/q', '*/mixer/k', '*/mixer/v'): ByHead(f'{_LAYER}.in_proj'),
  '*/mixer/q/bias': _Flat(f'{_LAYER}.q_bias'),
  '*/mixer/v/bias': _Flat(f'{_LAYER}.v_bias'),
  '*/mixer/distance_q': f'{_LAYER}.pos_q_proj',
  '*/mixer/distance_k': f'{_LAYER}.pos_proj',
  'common': 'deberta.encoder.rel_embeddings',
  'classifier/hidden': 'pooler.dense',
}
TOPS = {name: top for name, top in deberta_v2.TOPS.items() if name != 'ForMultipleChoice'}
FAMILY = Family(
  'Deberta', deberta.read, deberta.write, NAMES, 'deberta.', 'ForMaskedLM', TOPS,
  ('cls.predictions.decoder.weight',),
  (r'position_ids$', r'^cls\.predictions\.decoder\.bias$', r'^mask_predictions\.',
   r'position_embeddings\.'),
  aliases=deberta_v2.LEGACY,
)  # fmt: skip
