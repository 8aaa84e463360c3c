"""Adam with decoupled weight decay."""

from collections.abc import Iterator
import dataclasses

import optax

from tfm.optim.base import Letters, Optim, dtype_name, share


@dataclasses.dataclass(frozen=True)
class AdamW(Optim):
  """m / (sqrt(v) + eps), m and v the debiased moving averages of g and g^2 (arXiv:1412.6980,
  arXiv:1711.05101).

  The original transformer's is `b2=0.98`, `eps=1e-9`, `decay=0`, `clip=none` under
  `schedule=rsqrt`."""

  b1: float = 0.9
  b2: float = 0.95
  eps: float = 1e-8
  #: The dtype m is kept in; None is that of the parameter. v always has the parameter's.
  m_dtype: str | None = None

  def rule(self, letters: Letters) -> optax.GradientTransformation:
    del letters
    return optax.scale_by_adam(self.b1, self.b2, self.eps, mu_dtype=self.m_dtype)

  def check(self) -> Iterator[str]:
    yield from super().check()
    yield from share('b1', self.b1)
    yield from share('b2', self.b2)
    yield from dtype_name('m_dtype', self.m_dtype)
    if self.eps <= 0:
      yield f'eps: {self.eps} does not keep the division finite. Expected more than 0.'
