"""Real values of a sequence or of each token: actions, returns, states, scores, forecasts."""

from collections.abc import Iterator
import dataclasses

from flax import linen as nn
import jax

from tfm.parts.act.base import Act
from tfm.parts.context import Dims
from tfm.parts.dense import Dense
from tfm.parts.dropout import drop
from tfm.parts.head.base import Head, HeadContext
from tfm.parts.head.pick import Pick, picked, width


@dataclasses.dataclass(frozen=True)
class Regress(Head):
  """act(h W + b), where h is the vector that `pick` names (see `tfm.parts.head.pick`).

  Outputs: `predictions` `[B, T, size]` for pick='each', else `[B, size]`.

  Attributes:
    size: number of values.
    pick: which hidden states are pooled; each returns values for each token.
    act: applied to the values (tanh bounds actions).
    bias: whether there is b.
    dropout: rate before the projection.
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
    if self.size < 1 or not 0 <= self.dropout < 1:
      yield f'size={self.size}, dropout={self.dropout}. Expected at least one value, and a share less than 1.'


class _Regress(nn.Module):
  spec: Regress
  dims: Dims

  @nn.compact
  def __call__(self, x_BTD: jax.Array, context: HeadContext) -> dict[str, jax.Array]:
    s, D = self.spec, width(self.spec.pick, self.dims.d_model)
    h = drop(picked(x_BTD, context, s.pick), s.dropout, context.train, self)
    y = Dense('DR', (D, s.size), self.dims, bias=s.bias, name='out')(h)
    return {s.name or 'predictions': y if s.act is None else s.act(y)}
