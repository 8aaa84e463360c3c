"""Adam with decoupled weight decay."""

from collections.abc import Iterator
import dataclasses

import optax

from tfm.optim.base import Letters, Optim, check_decay, check_dtype
from tfm.optim.moments import in_dtypes, optax_dtype


@dataclasses.dataclass(frozen=True)
class AdamW(Optim):
  """Adam with decoupled weight decay (arXiv:1412.6980, arXiv:1711.05101).

  The update is m / (sqrt(v) + eps), with debiased moving averages m of g and v of g^2. The original
  transformer uses `b2=0.98`, `eps=1e-9`, `decay=0`, `clip=none` and `schedule=rsqrt`.

  Attributes:
    b1: Decay of m.
    b2: Decay of v.
    eps: Added to the denominator.
    m_dtype: The dtype of m: float32, bfloat16 or int8. Defaults to that of the parameter.
    v_dtype: The dtype of v, as `m_dtype`. bfloat16 and int8 are rounded at random. int8 is in
      blocks with scales; vectors and small arrays are then float32 (`tfm.optim.moments`).
  """

  b1: float = 0.9
  b2: float = 0.95
  eps: float = 1e-8
  m_dtype: str | None = None
  v_dtype: str | None = None

  def rule(self, letters: Letters) -> optax.GradientTransformation:
    m_dtype = optax_dtype(self.m_dtype)
    adam = optax.scale_by_adam(self.b1, self.b2, self.eps, mu_dtype=m_dtype)
    return in_dtypes(adam, letters, mu=self.m_dtype, nu=self.v_dtype)

  def check(self) -> Iterator[str]:
    yield from super().check()
    yield from check_decay('b1', self.b1)
    yield from check_decay('b2', self.b2)
    yield from check_dtype('m_dtype', self.m_dtype)
    yield from check_dtype('v_dtype', self.v_dtype)
    if self.eps <= 0:
      yield f'eps: is {self.eps}. Expected more than 0.'
