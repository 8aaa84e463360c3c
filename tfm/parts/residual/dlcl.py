"""A dynamic linear combination of layers (DLCL, arXiv:1906.01787)."""

import dataclasses

from tfm.parts.norm.base import Norm
from tfm.parts.norm.layer import LayerNorm
from tfm.parts.residual.average import Average, Sum
from tfm.parts.residual.base import Residual


@dataclasses.dataclass(frozen=True)
class Dlcl(Residual):
  """Block l + 1 reads sum_k w_lk norm_k(x_k) over k <= l, x_0 the embeddings; at first the mean, w
  = 1 / (l + 1).

  What follows the last block is such a sum too. Each x_k has its own `norm`.

  *Cost*: as many stream-sized arrays as blocks, in training and in decoding; nothing is cached.

  *Differs*: a reconstruction from the paper's formula; its published code was no oracle.
  """

  norm: Norm = LayerNorm()

  def make(self, dims):
    norm = self.norm.make(dims)
    pure = (
      lambda key, x: norm.init(key, x)['params'],
      lambda params, x: norm.apply({'params': params}, x),
    )
    return Average(self.sums(dims.depth), dims, pure)

  def sums(self, depth: int) -> tuple[Sum, ...]:
    """The combinations of a stack of so many blocks."""
    return tuple(Sum(l, tuple(range(l + 1)), (1 / (l + 1),) * (l + 1)) for l in range(depth + 1))

  def flops(self, d_model, depth):
    return 2 * d_model * (depth + 1) * (depth + 2) / 2
