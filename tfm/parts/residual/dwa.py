"""Depth-weighted averages (DenseFormer, arXiv:2402.02622)."""

from collections.abc import Iterator
import dataclasses

from tfm.parts.residual.average import Average, Sum
from tfm.parts.residual.base import Residual


@dataclasses.dataclass(frozen=True)
class Dwa(Residual):
  """After block i: y_i = sum_j a_ij x_j over j <= i, x_0 the embeddings, x_j what block j wrote;
  a_ii = 1, else 0.

  Only every `period`-th block averages, and only over j with (i - j) a multiple of `dilation`. At
  first the numbers are those of the plain stack.

  *Cost*: as many stream-sized arrays as there are averages, in training and in decoding; nothing is
  cached."""

  dilation: int = 1
  period: int = 1

  def make(self, dims):
    return Average(self.sums(dims.depth), dims) if dims.depth >= self.period else self

  def sums(self, depth: int) -> tuple[Sum, ...]:
    """The averages of a stack of so many blocks."""
    targets = range(self.period, depth + 1, self.period)
    sources = {i: tuple(range(i % self.dilation, i + 1, self.dilation)) for i in targets}
    return tuple(Sum(i, of, tuple(float(j == i) for j in of)) for i, of in sources.items())

  def flops(self, d_model, depth):
    return 2 * d_model * sum(len(s.sources) for s in self.sums(depth))

  def check(self) -> Iterator[str]:
    if self.dilation < 1 or self.period < 1:
      yield f'dilation={self.dilation}, period={self.period} is no number of blocks. Expected at least 1 of each.'
