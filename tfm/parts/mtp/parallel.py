"""Heads side by side on a shared trunk (Gloeckle et al., arXiv:2404.19737)."""

import dataclasses

from tfm.parts.mtp.base import MTP


@dataclasses.dataclass(frozen=True)
class ParallelMTP(MTP):
  """p(x_{t+k+1}) = softmax(U norm(layer_k(z_t))), z what enters the model's last segment; norm and
  U are the model's.

  The model's own last segment is the head of the next token, so n heads in all are `depth` = n - 1.
  To keep the number of parameters, take as many layers from the trunk."""

  @property
  def chained(self):
    return False
