"""Base class of weight initializers."""

from collections.abc import Callable
import dataclasses
from typing import TYPE_CHECKING, Any

from tfm.core.registry import Part

if TYPE_CHECKING:
  from tfm.parts.context import Dims

#: Roles of weights with an output that is added to the residual stream.
RESIDUAL = ('o', 'down')


@dataclasses.dataclass(frozen=True)
class Init(Part):
  """Base class: initializers chosen by the role of a weight.

  Roles are `embed`, `types`, `positions`, `head`, `transform`, `relative`, `q`, `k`, `v`, `o`,
  `up`, `gate`, `down` and `conv`, and `x` and `h` for the input and recurrent weights of a
  recurrent cell. Biases start at 0 and scales of norms at their identity.
  """

  def weight(self, role: str, n_in: int, n_out: int, dims: 'Dims') -> Callable[..., Any]:
    """Return the initializer `(key, shape, dtype)` of a weight.

    Args:
      role: purpose of the weight.
      n_in: fan-in.
      n_out: fan-out.
      dims: sizes of the model.

    Returns:
      A function that draws the weight.
    """
    raise AssertionError(f'{type(self).__name__} must return an initializer')
