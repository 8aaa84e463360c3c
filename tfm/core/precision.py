"""The dtypes of a run: parameters, computation and reductions."""

from collections.abc import Iterator
import dataclasses

import jax.numpy as jnp

_NAMES = ('float32', 'bfloat16', 'float16', 'float64')


@dataclasses.dataclass(frozen=True)
class Precision:
  """The dtypes of a run, by name.

  Attributes:
    param: Stored and updated parameters.
    compute: Activations and matrix products.
    reduce: Softmax, norms and losses. Sixteen bits lose accuracy here.
  """

  param: str = 'float32'
  compute: str = 'float32'
  reduce: str = 'float32'

  def check(self) -> Iterator[str]:
    for f in dataclasses.fields(self):
      if (name := getattr(self, f.name)) not in _NAMES:
        yield f'{f.name}: unknown dtype {name!r}. Known: {", ".join(_NAMES)}.'

  def dtype(self, which: str) -> jnp.dtype:
    """Return the dtype of `'param'`, `'compute'` or `'reduce'`."""
    return jnp.dtype(getattr(self, which))
