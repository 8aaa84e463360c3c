"""Multi-token prediction with parallel heads."""

import dataclasses

from tfm.parts.mtp.base import MTP


@dataclasses.dataclass(frozen=True)
class ParallelMTP(MTP):
  """Parallel heads on a shared trunk (arXiv:2404.19737).

  Depth k computes softmax(U norm(layer_k(z_t))). z is the input of the last segment of the model,
  norm and U are shared with the model. The last segment itself is the head of the next token, so n
  heads in all are `depth` = n - 1. To keep the number of parameters, remove the same number of
  layers from the trunk.
  """

  @property
  def chained(self):
    return False
