"""Lion: updates by the sign of the momentum."""

from collections.abc import Iterator
import dataclasses

import optax

from tfm.optim.base import Letters, Optim, check_decay, check_dtype
from tfm.optim.moments import in_dtypes, optax_dtype


@dataclasses.dataclass(frozen=True)
class Lion(Optim):
  """Lion (arXiv:2302.06675): sign(b1 m + (1 - b1) g), then m <- b2 m + (1 - b2) g.

  All steps have the same size. Use a third to a tenth of AdamW's learning rate, and three to ten
  times its decay.

  Attributes:
    b1: Weight of m in the update.
    b2: Decay of m.
    m_dtype: The dtype of m: float32, bfloat16 or int8 (`tfm.optim.moments`). Defaults to that of
      the parameter.
  """

  lr: float = 1e-4
  decay: float = 1.0
  b1: float = 0.9
  b2: float = 0.99
  m_dtype: str | None = None

  def rule(self, letters: Letters) -> optax.GradientTransformation:
    lion = optax.scale_by_lion(self.b1, self.b2, mu_dtype=optax_dtype(self.m_dtype))
    return in_dtypes(lion, letters, mu=self.m_dtype)

  def check(self) -> Iterator[str]:
    yield from super().check()
    yield from check_decay('b1', self.b1)
    yield from check_decay('b2', self.b2)
    yield from check_dtype('m_dtype', self.m_dtype)
