"""Adam with decoupled weight decay."""

from collections.abc import Iterator
import dataclasses

import optax

from tfm.optim.base import Letters, Optim, check_decay, check_dtype
from tfm.optim.rounding import small_second_moment


@dataclasses.dataclass(frozen=True)
class AdamW(Optim):
  """Adam with decoupled weight decay (arXiv:1412.6980, arXiv:1711.05101).

  The update is m / (sqrt(v) + eps), with debiased moving averages m of g and v of g^2. The original
  transformer uses `b2=0.98`, `eps=1e-9`, `decay=0`, `clip=none` and `schedule=rsqrt`.

  Attributes:
    b1: Decay of m.
    b2: Decay of v.
    eps: Added to the denominator.
    m_dtype: The dtype of m. Defaults to that of the parameter.
    v_dtype: The dtype of v. Defaults to that of the parameter. bfloat16 is rounded at random.
  """

  b1: float = 0.9
  b2: float = 0.95
  eps: float = 1e-8
  m_dtype: str | None = None
  v_dtype: str | None = None

  def rule(self, letters: Letters) -> optax.GradientTransformation:
    del letters
    adam = optax.scale_by_adam(self.b1, self.b2, self.eps, mu_dtype=self.m_dtype)
    return small_second_moment(adam) if self.v_dtype == 'bfloat16' else adam

  def check(self) -> Iterator[str]:
    yield from super().check()
    yield from check_decay('b1', self.b1)
    yield from check_decay('b2', self.b2)
    yield from check_dtype('m_dtype', self.m_dtype)
    yield from check_dtype('v_dtype', self.v_dtype)
    if self.eps <= 0:
      yield f'eps: is {self.eps}. Expected more than 0.'
