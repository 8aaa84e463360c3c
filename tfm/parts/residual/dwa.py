"""Depth-weighted averages of block outputs."""

from collections.abc import Iterator
import dataclasses

from tfm.parts.residual.average import Average, Sum
from tfm.parts.residual.base import Residual


@dataclasses.dataclass(frozen=True)
class Dwa(Residual):
  """Depth-weighted average of block outputs (DenseFormer, arXiv:2402.02622).

  After block i the stream is y_i = sum_j a_ij x_j over j <= i, where x_0 is the embeddings and x_j
  the output of block j. a_ii starts at 1 and the others at 0, which is the plain stack. The stack
  holds one running sum per average, in training and in decoding.

  Attributes:
    dilation: the sum has only terms j where i - j is a multiple of it.
    period: number of blocks from one average to the next.
  """

  dilation: int = 1
  period: int = 1

  def make(self, dims):
    return Average(self.sums(dims.depth), dims) if dims.depth >= self.period else self

  def sums(self, depth: int) -> tuple[Sum, ...]:
    """Return the averages of a stack of `depth` blocks."""
    sums = []
    for target in range(self.period, depth + 1, self.period):
      sources = tuple(range(target % self.dilation, target + 1, self.dilation))
      sums.append(Sum(target, sources, tuple(float(j == target) for j in sources)))
    return tuple(sums)

  def flops(self, d_model, depth):
    return 2 * d_model * sum(len(s.sources) for s in self.sums(depth))

  def check(self) -> Iterator[str]:
    if self.dilation < 1 or self.period < 1:
      yield (
        f'dilation={self.dilation}, period={self.period} must be positive. '
        'Expected at least 1 each.'
      )
