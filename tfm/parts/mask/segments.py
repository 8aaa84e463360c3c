"""Documents packed in one row do not see each other, and nobody sees padding."""

import dataclasses

from tfm.parts.mask.base import Mask


@dataclasses.dataclass(frozen=True)
class Segments(Mask):
  """Same segment, and not padding (segment 0). Attention adds it to every mask; alone it is full within a document."""

  def __call__(self, q, k):
    return (q.segment == k.segment) & (k.segment > 0)
