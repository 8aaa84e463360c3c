"""Weights that MLX quantized: integers of a few bits with a scale and a smallest number for each
group of inputs.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfm.hub.quantized.lazy_weights import Groups, LazyMatrix, Parts, check_options, unpack_bits
from tfm.hub.tensors import Entry, Tensors


def read(
  tensors: Tensors, options: Mapping[str, Any], dtype: np.dtype, where: str
) -> dict[str, Entry]:
  """Return the tensors with every quantized weight as numbers.

  Raises:
    UserError: an option is not read, or the tensors do not fit together.
  """
  check_options(where, options, mode=('affine', None), bits=(4, 8, 2))
  parts = Parts(tensors.entries, ('.scales', '.biases', '.weight'), where)
  modules = list(parts.modules())
  found = parts.rest(modules)
  for module in modules:
    own = options.get(module)  # overrides for this module
    found[f'{module}.weight'] = _weight(
      parts, module, own if isinstance(own, Mapping) else options, dtype
    )
  return found


def _weight(parts: Parts, module: str, options: Mapping[str, Any], dtype: np.dtype) -> LazyMatrix:
  words, scales, least = (parts.need(module, f'.{name}') for name in ('weight', 'scales', 'biases'))
  rows, groups = scales.shape
  columns, bits = groups * int(options['group_size']), int(options.get('bits', 4))
  if words.dtype != np.uint32 or words.shape != (rows, columns * bits // 32):
    parts.refuse(
      f'{module}.weight is {words.dtype} {list(words.shape)}',
      f'uint32 words of {rows} x {columns} numbers of {bits} bits',
    )
  parts.check(module, biases=scales.shape)

  def make(part: slice) -> np.ndarray:
    of_groups, q = (
      Groups(columns, groups),
      unpack_bits(words.array()[part], bits).astype(np.float32),
    )
    of_groups.put(np.multiply, q, scales.array()[part].astype(np.float32))
    of_groups.put(np.add, q, least.array()[part].astype(np.float32))
    return q

  return LazyMatrix((rows, columns), dtype, make, [words, scales, least])
