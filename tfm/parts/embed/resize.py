"""Position tables of images: fixed waves, and interpolation to other grids of patches."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

#: Interpolation as in torch: 'bicubic' without antialiasing (Keys' kernel with a = -3/4),
#: 'antialiased' with it (a = -1/2).
Resize = Literal['bicubic', 'antialiased']


def resize_positions(
  table_PD: jax.Array, old: tuple[int, ...], new: tuple[int, ...], how: Resize
) -> jax.Array:
  """Interpolate a position table to another grid of patches, in float32.

  Args:
    table_PD: the table, `[old rows x old columns, D]`, row by row.
    old: rows and columns of the table.
    new: rows and columns of the result.
    how: the method of interpolation.

  Returns:
    `[new rows x new columns, D]`, in the dtype of the table.
  """
  D = table_PD.shape[-1]
  square = table_PD.astype(jnp.float32).reshape(*old, D)
  if how == 'antialiased':
    square = jax.image.resize(square, (*new, D), 'cubic', antialias=True)
  else:
    rows = jnp.asarray(bicubic(old[0], new[0]))
    columns = jnp.asarray(bicubic(old[1], new[1]))
    square = jnp.einsum('ah,bw,hwd->abd', rows, columns, square)
  return square.reshape(-1, D).astype(table_PD.dtype)


def bicubic(n: int, m: int, a: float = -0.75) -> np.ndarray:
  """Return the matrix of torch's bicubic interpolation (align_corners=False).

  `jax.image.resize` uses a = -1/2. On tables of unit variance the results differ by up to 0.29.

  Args:
    n: number of input points.
    m: number of output points.
    a: parameter of Keys' kernel.

  Returns:
    float32 `[m, n]`.
  """
  place = (np.arange(m) + 0.5) * n / m - 0.5
  first = np.floor(place).astype(int)
  weights = np.zeros((m, n))
  for tap in range(-1, 3):
    distance = np.abs(place - first - tap)
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    # Taps beyond the edge use the value at the edge.
    source = np.clip(first + tap, 0, n - 1)
    np.add.at(weights, (np.arange(m), source), np.where(distance <= 1, near, far))
  return weights.astype(np.float32)


def sincos(grid: tuple[int, ...], width: int, base: float = 10_000.0) -> np.ndarray:
  """Return fixed positions: waves of the column, then of the row (MAE, arXiv:2111.06377).

  Args:
    grid: rows and columns.
    width: number of channels, divisible by 4.
    base: largest wavelength divided by 2 pi.

  Returns:
    float32 `[rows x columns, width]`.
  """
  frequency = base ** (-np.arange(width // 4) / (width / 4))
  rows, columns = np.meshgrid(*map(np.arange, grid), indexing='ij')
  waves = []
  for place in (columns, rows):
    angle = place.reshape(-1, 1) * frequency
    waves += [np.sin(angle), np.cos(angle)]
  return np.concatenate(waves, -1).astype(np.float32)
