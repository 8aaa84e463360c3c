"""Which dtype a run keeps, computes and reduces in. The model never knows."""

from collections.abc import Iterator
import dataclasses

import jax.numpy as jnp

_NAMES = ('float32', 'bfloat16', 'float16', 'float64')


@dataclasses.dataclass(frozen=True)
class Precision:
  """Dtypes by name. `param` is stored and updated, `compute` flows through the layers and matmuls,
  `reduce` is what softmax, norms and the loss are computed in (never let it be 16 bits without
  measuring)."""

  param: str = 'float32'
  compute: str = 'float32'
  reduce: str = 'float32'

  def check(self) -> Iterator[str]:
    for f in dataclasses.fields(self):
      if (name := getattr(self, f.name)) not in _NAMES:
        yield f'{f.name}: unknown dtype {name!r}. Known: {", ".join(_NAMES)}.'

  def dtype(self, which: str) -> jnp.dtype:
    return jnp.dtype(getattr(self, which))
