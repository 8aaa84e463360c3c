"""Weights of compressed-tensors (LLM Compressor, vLLM): int8, float8 and packed integers."""

from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from tfm.core import errors
from tfm.hub.quantized.lazy_weights import Groups, LazyMatrix, Parts, Quantized, unpack_bits
from tfm.hub.tensors import Entry, Tensors

_FORMATS = (
  'int-quantized', 'float-quantized', 'naive-quantized', 'pack-quantized', 'dense',
  'mixed-precision',
)  # fmt: skip
#: Scales of activations and cached keys and values, which tfm does not quantize.
_ACTIVATIONS = (
  '.input_scale', '.input_zero_point', '.output_scale', '.output_zero_point', '.k_scale',
  '.v_scale',
)  # fmt: skip
_PARTS = (
  '.weight_scale', '.weight', '.weight_packed', '.weight_zero_point', '.weight_g_idx',
  '.weight_shape',
)  # fmt: skip

#: The fields `weights` of `config_groups`.
Schemes = Sequence[Mapping[str, Any]]


def read(checkpoint: Quantized) -> dict[str, Entry]:
  """Return the tensors of a checkpoint of compressed-tensors with all weights dequantized."""
  tensors, options, dtype, where = checkpoint
  groups = list((options.get('config_groups') or {}).values())
  formats = [g.get('format') for g in groups if g.get('format')]
  for form in [options.get('format', 'dense'), *formats]:
    if form not in _FORMATS:
      raise errors.UserError(
        f'{where}: quantization_config: {errors.unknown("format", form, _FORMATS)}'
      )
  for name in ('transform_config', 'sparsity_config'):
    value = options.get(name) or {}
    if value and value.get('format', value) != 'dense':
      raise errors.UserError(
        f'{where}: quantization_config: {name}={value!r} is not supported. Expected none.'
      )
  entries = {n: e for n, e in tensors.entries.items() if not n.endswith(_ACTIVATIONS)}
  parts = Parts(entries, _PARTS, where)
  modules = list(parts.modules())
  found = parts.rest(modules)
  schemes = [w for g in groups if (w := g.get('weights'))]
  for module in modules:
    is_packed = parts.get(module, '.weight_packed') is not None
    read_weight = _packed if is_packed else _unpacked
    found[f'{module}.weight'] = read_weight(parts, module, schemes, dtype)
  return found


def _unpacked(parts: Parts, module: str, schemes: Schemes, dtype: np.dtype) -> LazyMatrix:
  """Dequantize an 8-bit weight with a scale per matrix, row, group of inputs or block."""
  numbers = parts.need(module, '.weight')
  if numbers.dtype not in (np.int8, ml_dtypes.float8_e4m3fn):
    parts.refuse(f'{module}.weight is {numbers.dtype}', 'int8 or float8_e4m3fn')
  zero = parts.get(module, '.weight_zero_point')
  integers = lambda part: numbers.array()[part].astype(np.float32)
  return _scaled(
    parts, module, schemes, LazyMatrix(numbers.shape, dtype, integers, [numbers]), zero
  )


def _packed(parts: Parts, module: str, schemes: Schemes, dtype: np.dtype) -> LazyMatrix:
  """Dequantize unsigned integers that are packed along the inputs."""
  words, scale = parts.need(module, '.weight_packed'), parts.need(module, '.weight_scale')
  rows, columns = (int(n) for n in parts.need(module, '.weight_shape').array())
  known = sorted({int(s['num_bits']) for s in schemes})
  fitting = [b for b in known if b in (2, 4, 8) and words.shape == (rows, -(-columns * b // 32))]
  if len(fitting) != 1:
    parts.refuse(
      f'{module}.weight_packed is {list(words.shape)} for {rows} x {columns} numbers of {known} '
      'bits',
      'one row of words per row of 2, 4 or 8-bit numbers',
    )
  (width,) = fitting
  half = 1 << (width - 1)
  integers = lambda part: (
    unpack_bits(words.array()[part], width)[:, :columns].astype(np.float32) - half
  )
  zero = parts.get(module, '.weight_zero_point')
  if zero is not None and zero.shape != scale.shape:
    # Zeros are packed along the outputs.
    unpacked = unpack_bits(np.ascontiguousarray(zero.array().T), width).T[:rows]
    zero = Tensors({'zero': unpacked.astype(np.float32) - half}).entries['zero']
  return _scaled(
    parts, module, schemes, LazyMatrix((rows, columns), dtype, integers, [words]), zero
  )


def _scaled(
  parts: Parts, module: str, schemes: Schemes, integers: LazyMatrix, zero: Entry | None
) -> LazyMatrix:
  """Return scale (q - zero) for integers q, with scales per matrix, row, group or block."""
  (rows, columns), scale = integers.shape, parts.need(module, '.weight_scale')
  grid = scale.shape
  if len(grid) != 2:
    grid = (1, 1) if grid in ((), (1,)) else (*grid, 1)
  height, width = _block(parts, module, schemes, (rows, columns), grid)
  order = parts.get(module, '.weight_g_idx')
  if zero is not None and zero.shape != scale.shape:
    parts.refuse(f'{module}.weight_zero_point is {list(zero.shape)}', list(scale.shape))

  def make(part: slice) -> np.ndarray:
    q, row = integers.make(part), np.arange(part.start, part.stop) // height
    groups = Groups(columns, grid[1], None if order is None else order.array(), width)
    if zero is not None:
      groups.apply(np.subtract, q, zero.array().astype(np.float32).reshape(grid)[row])
    groups.apply(np.multiply, q, scale.array().astype(np.float32).reshape(grid)[row])
    return q

  extra = [e for e in (scale, zero, order) if e is not None]
  return LazyMatrix(integers.shape, integers.dtype, make, [*integers.sources, *extra])


def _block(
  parts: Parts, module: str, schemes: Schemes, shape: tuple[int, int], grid: tuple[int, ...]
) -> tuple[int, int]:
  """Return the number of rows and columns with a common scale."""
  rows, columns = shape
  sizes = [(1, int(s['group_size'])) for s in schemes if (s.get('group_size') or 0) > 0]
  structures = [s['block_structure'] for s in schemes if s.get('block_structure')]
  sizes += [(int(height), int(width)) for height, width in structures]
  sizes += [(1, columns), (rows, columns)]
  fitting = (each for each in sizes if grid == (-(-rows // each[0]), -(-columns // each[1])))
  if (found := next(fitting, None)) is None:
    what = f'{module}.weight_scale is {list(grid)} for {rows} x {columns} numbers'
    parts.refuse(what, f'scales of a scheme in {list(schemes)}')
  return found
