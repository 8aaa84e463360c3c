"""Sandwich norms with a low-rank branch parallel to the mixer (LAuReL, Gemma 3n)."""

from collections.abc import Iterator
import dataclasses
import math

from flax import linen as nn
import jax

from tfm.core.module import Module
from tfm.parts.context import Dims
from tfm.parts.dense import Dense
from tfm.parts.norm.base import Norm
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.residual_layout.base import ResidualLayout


@dataclasses.dataclass(frozen=True)
class Laurel(ResidualLayout):
  """Low-rank residual branch of the mixer (LAuReL, arXiv:2411.07501; Gemma 3n).

  For the mixer f the sum is (x + norm(f(h)) + h + norm(h A B)) / sqrt 2, with h = norm(x). Other
  branches are as in `sandwich`.

  Attributes:
    rank: number of columns of A.
    norm: norm of h A B.
  """

  rank: int = 64
  norm: Norm = RMSNorm()

  def check(self) -> Iterator[str]:
    if self.rank < 1:
      yield f'rank={self.rank} is not a rank. Expected at least 1.'

  def own(self, dims):
    return {'laurel': _LowRank(self, dims)}

  def flops(self, d_model):
    return 4 * d_model * self.rank

  def __call__(self, x_BTD, branches, norm):
    for name, f in branches.items():
      if name == 'laurel':
        continue
      h_BTD = norm(f'{name}_norm')(x_BTD)
      y_BTD = x_BTD + f(h_BTD, norm(f'{name}_post_norm'), x_BTD)
      if name == 'mixer':
        y_BTD = (y_BTD + h_BTD + branches['laurel'](h_BTD)) / math.sqrt(2)
      x_BTD = y_BTD
    return x_BTD

  @property
  def additive(self):
    return False


class _LowRank(Module):
  spec: Laurel
  dims: Dims

  @nn.compact
  def __call__(self, x_BTD: jax.Array) -> jax.Array:
    D, R = self.dims.d_model, self.spec.rank
    x_BTR = Dense('DR', (D, R), self.dims, name='left')(x_BTD)
    x_BTD = Dense('RD', (R, D), self.dims, name='right')(x_BTR)
    return self.spec.norm.make(self.dims).copy(name='norm')(x_BTD)
