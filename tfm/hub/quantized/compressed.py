"""Weights in the formats of compressed-tensors (LLM Compressor, vLLM): int8, float8, and integers
packed into words.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from tfm.core import errors
from tfm.hub.quantized.lazy_weights import Groups, LazyMatrix, Parts, unpack_bits
from tfm.hub.tensors import Entry, Tensors

_FORMATS = (
  'int-quantized',
  'float-quantized',
  'naive-quantized',
  'pack-quantized',
  'dense',
  'mixed-precision',
)
#: Scales of quantized activations and cached keys, which tfm does not quantize.
_ACTIVATIONS = (
  '.input_scale',
  '.input_zero_point',
  '.output_scale',
  '.output_zero_point',
  '.k_scale',
  '.v_scale',
)
_PARTS = (
  '.weight_scale',
  '.weight',
  '.weight_packed',
  '.weight_zero_point',
  '.weight_g_idx',
  '.weight_shape',
)

#: The entries `weights` of `config_groups`.
Schemes = Sequence[Mapping[str, Any]]


def read(
  tensors: Tensors, options: Mapping[str, Any], dtype: np.dtype, where: str
) -> dict[str, Entry]:
  """Return the tensors with every quantized weight as numbers.

  Raises:
    UserError: a format or option is not read, or the tensors do not fit together.
  """
  groups = list((options.get('config_groups') or {}).values())
  for form in [
    options.get('format', 'dense'),
    *(g.get('format') for g in groups if g.get('format')),
  ]:
    if form not in _FORMATS:
      raise errors.UserError(
        f'{where}: quantization_config: {errors.unknown("format", form, _FORMATS)}'
      )
  for name in ('transform_config', 'sparsity_config'):
    options = options.get(name) or {}
    if options and options.get('format', options) != 'dense':
      raise errors.UserError(
        f'{where}: quantization_config: {name}={options!r} is not read. Expected none.'
      )
  entries = {n: e for n, e in tensors.entries.items() if not n.endswith(_ACTIVATIONS)}
  parts = Parts(entries, _PARTS, where)
  modules = list(parts.modules())
  found = parts.rest(modules)
  schemes = [w for g in groups if (w := g.get('weights'))]
  for module in modules:
    packed = parts.get(module, '.weight_packed') is not None
    found[f'{module}.weight'] = (_packed if packed else _plain)(parts, module, schemes, dtype)
  return found


def _plain(parts: Parts, module: str, schemes: Schemes, dtype: np.dtype) -> LazyMatrix:
  """Return numbers of 8 bits, each with the scale of its matrix, row, group of inputs, or block."""
  numbers = parts.need(module, '.weight')
  if numbers.dtype not in (np.int8, ml_dtypes.float8_e4m3fn):
    parts.refuse(f'{module}.weight is {numbers.dtype}', 'int8 or float8_e4m3fn')
  zero = parts.get(module, '.weight_zero_point')
  integers = lambda part: numbers.array()[part].astype(np.float32)
  return _scaled(
    parts, module, schemes, LazyMatrix(numbers.shape, dtype, integers, [numbers]), zero
  )


def _packed(parts: Parts, module: str, schemes: Schemes, dtype: np.dtype) -> LazyMatrix:
  """Return integers that are packed along the inputs, stored with half of their range added."""
  words, scale = parts.need(module, '.weight_packed'), parts.need(module, '.weight_scale')
  rows, columns = (int(n) for n in parts.need(module, '.weight_shape').array())
  known = sorted({int(s['num_bits']) for s in schemes})
  fitting = [b for b in known if b in (2, 4, 8) and words.shape == (rows, -(-columns * b // 32))]
  if len(fitting) != 1:
    parts.refuse(
      f'{module}.weight_packed is {list(words.shape)} for {rows} x {columns} numbers of {known} '
      f'bits',
      'a row of words for each row of numbers of 2, 4 or 8 bits',
    )
  (width,) = fitting
  half = 1 << (width - 1)
  integers = lambda part: (
    unpack_bits(words.array()[part], width)[:, :columns].astype(np.float32) - half
  )
  zero = parts.get(module, '.weight_zero_point')
  if zero is not None and zero.shape != scale.shape:
    # Packed along the outputs.
    stored = (
      unpack_bits(np.ascontiguousarray(zero.array().T), width).T[:rows].astype(np.float32) - half
    )
    zero = Tensors({'zero': stored}).entries['zero']
  return _scaled(
    parts, module, schemes, LazyMatrix((rows, columns), dtype, integers, [words]), zero
  )


def _scaled(
  parts: Parts, module: str, schemes: Schemes, integers: LazyMatrix, zero: Entry | None
) -> LazyMatrix:
  """Return (q - zero) scale for integers q; scales are one, one a row, or a grid of groups or
  blocks.
  """
  (rows, columns), scale = integers.shape, parts.need(module, '.weight_scale')
  grid = (
    scale.shape
    if len(scale.shape) == 2
    else (1, 1)
    if scale.shape in ((), (1,))
    else (*scale.shape, 1)
  )
  height, width = _block(parts, module, schemes, (rows, columns), grid)
  order = parts.get(module, '.weight_g_idx')
  if zero is not None and zero.shape != scale.shape:
    parts.refuse(f'{module}.weight_zero_point is {list(zero.shape)}', list(scale.shape))

  def make(part: slice) -> np.ndarray:
    q, row = integers.make(part), np.arange(part.start, part.stop) // height
    of_groups = Groups(columns, grid[1], None if order is None else order.array(), width)
    if zero is not None:
      of_groups.put(np.subtract, q, zero.array().astype(np.float32).reshape(grid)[row])
    of_groups.put(np.multiply, q, scale.array().astype(np.float32).reshape(grid)[row])
    return q

  own = [e for e in (scale, zero, order) if e is not None]
  return LazyMatrix(integers.shape, integers.dtype, make, [*integers.sources, *own])


def _block(
  parts: Parts, module: str, schemes: Schemes, shape: tuple[int, int], grid: tuple[int, ...]
) -> tuple[int, int]:
  """Return how many rows and columns have one scale in common."""
  rows, columns = shape
  sizes = [(1, int(s['group_size'])) for s in schemes if (s.get('group_size') or 0) > 0]
  sizes += [
    (int(s['block_structure'][0]), int(s['block_structure'][1]))
    for s in schemes
    if s.get('block_structure')
  ]
  sizes += [(1, columns), (rows, columns)]
  fitting = (each for each in sizes if grid == (-(-rows // each[0]), -(-columns // each[1])))
  if (found := next(fitting, None)) is None:
    what = f'{module}.weight_scale is {list(grid)} for {rows} x {columns} numbers'
    parts.refuse(what, f'one of the schemes {list(schemes)}')
  return found
