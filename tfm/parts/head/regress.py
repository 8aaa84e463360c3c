"""Regression of real values, such as actions, returns, scores or forecasts."""

from collections.abc import Iterator
import dataclasses

from flax import linen as nn
import jax

from tfm.parts.act.base import Act
from tfm.parts.context import Dims
from tfm.parts.dense import Dense
from tfm.parts.dropout import drop
from tfm.parts.head.base import Head, HeadContext
from tfm.parts.head.pick import Pick, pool, width


@dataclasses.dataclass(frozen=True)
class Regress(Head):
  """Regression head, act(h W + b) for the pooled vector h.

  Output: `predictions` `[B, T, size]` for pick='each', else `[B, size]`.

  Attributes:
    size: number of values.
    pick: pooling, see `tfm.parts.head.pick`. 'each' returns values for each token.
    act: activation of the values (tanh bounds actions).
    bias: add b.
    dropout: rate before the projection.
    name: name of the output. Default: `predictions`.
  """

  size: int = 1
  pick: Pick = 'each'
  act: Act | None = None
  bias: bool = True
  dropout: float = 0.0

  def make(self, dims):
    return _Regress(self, dims)

  def returns(self, alone):
    del alone
    return (self.name or 'predictions',)

  def flops(self, dims, length):
    return (length if self.pick == 'each' else 1) * 2.0 * width(self.pick, dims.d_model) * self.size

  def check(self) -> Iterator[str]:
    if self.size < 1:
      yield f'size={self.size} is too small. Expected at least 1.'
    if not 0 <= self.dropout < 1:
      yield f'dropout={self.dropout} is not a rate. Expected at least 0 and less than 1.'


class _Regress(nn.Module):
  spec: Regress
  dims: Dims

  @nn.compact
  def __call__(self, x_BTD: jax.Array, context: HeadContext) -> dict[str, jax.Array]:
    s, D = self.spec, width(self.spec.pick, self.dims.d_model)
    h = drop(pool(x_BTD, context, s.pick), s.dropout, context.train, self)
    y = Dense('DR', (D, s.size), self.dims, bias=s.bias, name='out')(h)
    return {s.name or 'predictions': y if s.act is None else s.act(y)}
