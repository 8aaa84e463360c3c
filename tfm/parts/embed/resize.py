"""Tables of image positions: fixed waves, and learned tables resized to other grids of patches."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

#: bicubic: as torch without antialiasing (Keys' kernel with a = -3/4). antialiased: as torch with
#: it (a = -1/2).
Resize = Literal['bicubic', 'antialiased']


def resized(
  table_PD: jax.Array, old: tuple[int, ...], new: tuple[int, ...], how: Resize
) -> jax.Array:
  """Return a table of positions over the grid `old`, row by row, resampled to the grid `new` in
  float32.

  Args:
    table_PD: the table, `[old rows x old columns, D]`.
    old, new: rows and columns of patches.
    how: the method of interpolation.
  """
  D = table_PD.shape[-1]
  square = table_PD.astype(jnp.float32).reshape(*old, D)
  if how == 'antialiased':
    square = jax.image.resize(square, (*new, D), 'cubic', antialias=True)
  else:
    rows, columns = (jnp.asarray(bicubic(n, m)) for n, m in zip(old, new, strict=True))
    square = jnp.einsum('ah,bw,hwd->abd', rows, columns, square)
  return square.reshape(-1, D).astype(table_PD.dtype)


def bicubic(n: int, m: int, a: float = -0.75) -> np.ndarray:
  """Return the float32 matrix `[m, n]` of torch's bicubic interpolation from n to m points
  (align_corners=False).

  `jax.image.resize` uses a = -1/2, which is up to .29 apart on tables of unit variance.
  """
  place = (np.arange(m) + 0.5) * n / m - 0.5
  first = np.floor(place).astype(int)
  weights = np.zeros((m, n))
  for tap in range(-1, 3):
    distance = np.abs(place - first - tap)
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    # Taps beyond the edge read the edge.
    np.add.at(
      weights, (np.arange(m), np.clip(first + tap, 0, n - 1)), np.where(distance <= 1, near, far)
    )
  return weights.astype(np.float32)


def sincos(grid: tuple[int, ...], width: int, base: float = 10_000.0) -> np.ndarray:
  """Return fixed positions `[rows x columns, width]`: waves of the column, then of the row (MAE,
  arXiv:2111.06377).
  """
  frequency = base ** (-np.arange(width // 4) / (width / 4))
  rows, columns = np.meshgrid(*map(np.arange, grid), indexing='ij')
  waves = []
  for place in (columns, rows):
    angle = place.reshape(-1, 1) * frequency
    waves += [np.sin(angle), np.cos(angle)]
  return np.concatenate(waves, -1).astype(np.float32)
