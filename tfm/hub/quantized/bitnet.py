"""Weights of BitNet b1.58: ternary numbers with a scale, packed or not."""

import numpy as np

from tfm.core import errors
from tfm.hub.quantized.lazy_weights import LazyMatrix, Quantized
from tfm.hub.tensors import Entry
from tfm.zoo.rounding import is_online, options

#: Ternary numbers in one byte.
_PACKED = 4


def read(checkpoint: Quantized) -> dict[str, Entry]:
  """Return the tensors of a checkpoint with ternary weights dequantized.

  Tensors are returned unchanged if weights are rounded online.
  """
  tensors, config, dtype, where = checkpoint
  if is_online(config, where):
    return dict(tensors.entries)
  divided = options(config, where)['linear_class'] == 'bitlinear'
  entries = {name: e for name, e in tensors.entries.items() if not name.endswith('.weight_scale')}
  for name in (n for n in tensors if n.endswith('.weight_scale')):
    weight, scale = name.removesuffix('_scale'), tensors.entries[name]
    if weight not in entries:
      raise errors.UserError(f'{where}: {name} has no {weight}. Expected a weight for each scale.')
    if scale.shape != (1,):
      raise errors.UserError(
        f'{where}: {name} has shape {list(scale.shape)}. Expected [1], one scale per weight.'
      )
    entries[weight] = _ternary(entries[weight], scale, divided, dtype)
  return entries


def _ternary(numbers: Entry, scale: Entry, divided: bool, dtype: np.dtype) -> LazyMatrix:
  """Return a ternary weight, multiplied with one scale or divided by it.

  Args:
    numbers: The ternary weight, or packed bytes. Bits 2 r and 2 r + 1 of the bytes in row i hold
      row i + r * rows / 4 of the weight, plus 1.
    scale: One number.
    divided: Whether the weight is divided by the scale.
    dtype: The dtype of the result.
  """
  packed, (rows, *columns) = numbers.dtype == np.uint8, numbers.shape

  def make(part: slice) -> np.ndarray:
    factor = scale.array().astype(np.float32)
    if packed:
      field, row = np.divmod(np.arange(part.start, part.stop), rows)
      bits = numbers.array()[row] >> (2 * field).astype(np.uint8)[:, None]
      q = (bits & 3).astype(np.float32) - 1
    else:
      q = numbers.array()[part].astype(np.float32)
    return q * (1 / factor if divided else factor)

  shape = (rows * _PACKED if packed else rows, *columns)
  return LazyMatrix(shape, dtype, make, [numbers, scale])
