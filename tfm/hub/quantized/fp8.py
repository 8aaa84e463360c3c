"""Weights in float8 with a scale per block, row or matrix (DeepSeek-V3, Llama 3.1 405B)."""

import math

import ml_dtypes
import numpy as np

from tfm.core import errors
from tfm.hub.quantized.lazy_weights import Groups, LazyMatrix, Quantized
from tfm.hub.tensors import Entry


def read(checkpoint: Quantized) -> dict[str, Entry]:
  """Return the tensors of a checkpoint with float8 weights dequantized.

  Weights have a scale per block or per matrix.
  """
  tensors, options, dtype, where = checkpoint
  for field, known in (('fmt', ('e4m3', None)), ('expert_dtype', ('fp8', None))):
    if options.get(field) not in known:
      raise errors.UserError(
        f'{where}: quantization_config: {field} is {options[field]!r}. Expected {known[0]!r}.'
      )
  # Activation scales are ignored: tfm does not quantize activations.
  ignored = ('.activation_scale', '.input_scale')
  found: dict[str, Entry] = {n: e for n, e in tensors.entries.items() if not n.endswith(ignored)}
  for name in tensors:
    if tensors.dtype(name) != ml_dtypes.float8_e4m3fn:
      continue
    scale = found.pop(f'{name}_scale_inv', None) or found.pop(f'{name}_scale', None)
    height, width = options.get('weight_block_size') or tensors.shape(name)[-2:]
    *lead, rows, columns = tensors.shape(name)
    expected = [*lead, -(-rows // height), -(-columns // width)]
    if scale is None or math.prod(scale.shape) != math.prod(expected):
      other = 'missing' if scale is None else list(scale.shape)
      raise errors.UserError(
        f'{where}: {name} is float8 {list(tensors.shape(name))}, and {name}_scale_inv is {other}. '
        f'Expected {expected}, one per block of {height} x {width}.'
      )
    found[name] = _scaled(tensors.entries[name], scale, (height, width), dtype)
  return found


def read_rows(checkpoint: Quantized) -> dict[str, Entry]:
  """Return the tensors of a checkpoint with FBGEMM's float8 weights dequantized.

  Weights have a scale per row.
  """
  tensors, _, dtype, where = checkpoint
  entries = tensors.entries.items()
  found: dict[str, Entry] = {n: e for n, e in entries if not n.endswith('.input_scale_ub')}
  for name in [n for n in tensors if tensors.dtype(n) == ml_dtypes.float8_e4m3fn]:
    rows, columns = tensors.shape(name)
    scale = found.pop(f'{name}_scale', None)
    if scale is None or scale.shape not in ((rows,), (rows, 1)):
      other = 'missing' if scale is None else list(scale.shape)
      raise errors.UserError(
        f'{where}: {name}_scale is {other}. Expected {[rows, 1]}, one per row.'
      )
    found[name] = _scaled(tensors.entries[name], scale, (1, columns), dtype)
  return found


def _scaled(numbers: Entry, scale: Entry, block: tuple[int, int], dtype: np.dtype) -> LazyMatrix:
  """Return float8 numbers times the scale of their block, whose last blocks may be smaller."""
  (*_, rows, columns), (height, width) = numbers.shape, block
  down, across = -(-rows // height), -(-columns // width)

  def make(part: slice) -> np.ndarray:
    matrix, row = np.divmod(np.arange(part.start, part.stop), rows)
    scales = scale.array().reshape(-1, across)[matrix * down + row // height]
    q = numbers.array().reshape(-1, columns)[part].astype(np.float32)
    Groups(columns, across, size=width).apply(np.multiply, q, scales.astype(np.float32))
    return q

  return LazyMatrix(numbers.shape, dtype, make, [numbers, scale])
