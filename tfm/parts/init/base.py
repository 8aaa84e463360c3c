"""Where weights start."""

from collections.abc import Callable
import dataclasses
from typing import Any

from tfm.core.registry import Part

#: Weights whose output is added to the residual stream.
RESIDUAL = ('o', 'down')


@dataclasses.dataclass(frozen=True)
class Init(Part):
  """Chooses an initializer by what a weight is for.

  Roles: `embed`, `types`, `positions`, `head`, `transform`, `relative`, `q`, `k`, `v`, `o`, `up`,
  `gate`, `down`, `conv`; `x` and `h` for the input and the recurrent weight of a recurrent cell.
  Biases start at 0 and norm scales at their identity everywhere."""

  def weight(self, role: str, n_in: int, n_out: int, dims: Any) -> Callable[..., Any]:
    """The initializer of a weight that maps `n_in` numbers to `n_out`."""
    raise AssertionError(f'{type(self).__name__} must say how weights start')
