"""Shifts, scales and gates computed from a condition (adaLN-Zero, arXiv:2212.09748)."""

import dataclasses

from flax import linen as nn
import jax

from tfm.core.module import Module
from tfm.parts.act.base import Act
from tfm.parts.context import Dims
from tfm.parts.dense import Dense
from tfm.parts.init.base import Init


@dataclasses.dataclass(frozen=True)
class _Zero(Init):
  """Initialize every weight to 0."""

  def weight(self, role, n_in, n_out, dims):
    return nn.initializers.zeros


#: The init of projections that start at 0, independent of the init of the model.
ZERO = _Zero()


class Modulation(Module):
  """Linear map of a condition, act(c) W + b, as `[B, 1, D]`. W and b start at 0."""

  act: Act
  dims: Dims

  @nn.compact
  def __call__(self, cond_BD: jax.Array) -> jax.Array:
    dims = self.dims.replace(init=ZERO)
    layer = Dense('DD', (cond_BD.shape[-1], dims.d_model), dims, bias=True, name='project')
    return layer(self.act(cond_BD))[:, None]
