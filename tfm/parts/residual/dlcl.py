"""Dynamic linear combination of layers."""

import dataclasses

from tfm.parts.norm.base import Norm
from tfm.parts.norm.layer import LayerNorm
from tfm.parts.residual.average import Average, Sum
from tfm.parts.residual.base import Residual


@dataclasses.dataclass(frozen=True)
class Dlcl(Residual):
  """Learned linear combination of all previous layers (DLCL, arXiv:1906.01787).

  The input of block l + 1 is sum_k w_lk norm_k(x_k) over k <= l, where x_0 is the embeddings. The
  output of the stack is such a sum too. The weights start at 1 / (l + 1). A stack of n blocks holds
  n + 1 running sums, in training and in decoding.

  Note:
    This is a reconstruction from the formula of the paper. It was not compared with the published
    code.

  Attributes:
    norm: norm of each x_k, with separate parameters.
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
    """Return the combinations of a stack of `depth` blocks."""
    mean = lambda l: Sum(l, tuple(range(l + 1)), (1 / (l + 1),) * (l + 1))
    return tuple(mean(l) for l in range(depth + 1))

  def flops(self, d_model, depth):
    return 2 * d_model * (depth + 1) * (depth + 2) / 2
