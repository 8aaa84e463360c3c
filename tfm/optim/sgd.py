"""Stochastic gradient descent."""

from collections.abc import Iterator
import dataclasses

import optax

from tfm.optim.base import Letters, Optim, share


@dataclasses.dataclass(frozen=True)
class SGD(Optim):
  """m <- momentum m + g, stepping along m, or along momentum m + g if `nesterov`; along g without
  momentum.

  Differs: the weight decay stays outside the momentum, as everywhere in this package; L2
  regularisation puts it inside."""

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
      yield from share('momentum', self.momentum)
    elif self.nesterov:
      yield 'nesterov: there is no momentum to look ahead with. Expected nesterov=false or a momentum.'
