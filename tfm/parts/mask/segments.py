"""The mask between packed documents, padding and prediction orders."""

import dataclasses

from tfm.parts.mask.base import Band, Mask


@dataclasses.dataclass(frozen=True)
class Segments(Mask):
  """Attention within a document: equal segment ids, and no padding (segment 0).

  Attention combines it with every mask; on its own it is the full mask of a document. If the token
  info has a prediction order, it also requires order(key) < bound(query): see `tfm.model.targets`.
  """

  def __call__(self, q, k):
    same = (q.segment_ids == k.segment_ids) & (k.segment_ids > 0)
    return same if (bound := q.get('bound')) is None else same & (k.extras['order'] < bound)

  @property
  def band(self):
    return Band(same_segment=True)
