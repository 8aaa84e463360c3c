"""Documents packed in one row do not see each other, nobody sees padding, and an order that is told
is kept.
"""

import dataclasses

from tfm.parts.mask.base import Band, Mask


@dataclasses.dataclass(frozen=True)
class Segments(Mask):
  """Same segment, and not padding (segment 0). Attention adds it to every mask; alone it is full
  within a document.

  Where infos tell an order of prediction, also order(key) < bound(query): see `tfm.model.targets`.
  """

  def __call__(self, q, k):
    same = (q.segment_ids == k.segment_ids) & (k.segment_ids > 0)
    return same if (bound := q.get('bound')) is None else same & (k.extras['order'] < bound)

  @property
  def band(self):
    return Band(same_segment=True)
