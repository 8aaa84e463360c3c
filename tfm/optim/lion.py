"""Lion."""

from collections.abc import Iterator
import dataclasses

import optax

from tfm.optim.base import Letters, Optim, dtype_name, share


@dataclasses.dataclass(frozen=True)
class Lion(Optim):
  """sign(b1 m + (1 - b1) g), then m <- b2 m + (1 - b2) g (arXiv:2302.06675).

  Every step has the same size, so it wants a third to a tenth of AdamW's learning rate and as much
  more decay."""

  lr: float = 1e-4
  decay: float = 1.0
  b1: float = 0.9
  b2: float = 0.99
  #: The dtype m is kept in; None is that of the parameter.
  m_dtype: str | None = None

  def rule(self, letters: Letters) -> optax.GradientTransformation:
    del letters
    return optax.scale_by_lion(self.b1, self.b2, mu_dtype=self.m_dtype)

  def check(self) -> Iterator[str]:
    yield from super().check()
    yield from share('b1', self.b1)
    yield from share('b2', self.b2)
    yield from dtype_name('m_dtype', self.m_dtype)
