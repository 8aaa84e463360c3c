"""Stochastic gradient descent."""

from collections.abc import Iterator
import dataclasses

import optax

from tfm.optim.base import Letters, Optim, check_decay


@dataclasses.dataclass(frozen=True)
class SGD(Optim):
  """Stochastic gradient descent with momentum.

  m <- momentum m + g. The update is m, or momentum m + g if `nesterov`.

  Attributes:
    momentum: Decay of m. None updates along g.
    nesterov: Use Nesterov momentum.

  Note:
    As in all optimizers here, weight decay is not part of the momentum. L2 regularisation would be.
  """

  lr: float = 0.1
  decay: float = 0.0
  momentum: float | None = 0.9
  nesterov: bool = False

  def rule(self, letters: Letters) -> optax.GradientTransformation:
    del letters
    return optax.identity() if self.momentum is None else optax.trace(self.momentum, self.nesterov)

  def check(self) -> Iterator[str]:
    yield from super().check()
    if self.momentum is not None:
      yield from check_decay('momentum', self.momentum)
    elif self.nesterov:
      yield 'nesterov: is true, but momentum is none. Expected nesterov=false, or a momentum.'
