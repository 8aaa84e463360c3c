"""Weights of MLX: low-bit integers with a scale and a minimum per group of inputs."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfm.hub.quantized.lazy_weights import (
  Groups,
  LazyMatrix,
  Parts,
  Quantized,
  check_options,
  unpack_bits,
)
from tfm.hub.tensors import Entry


def read(checkpoint: Quantized) -> dict[str, Entry]:
  """Return the tensors of a checkpoint with MLX weights dequantized."""
  tensors, options, dtype, where = checkpoint
  check_options(where, options, mode=('affine', None), bits=(4, 8, 2))
  parts = Parts(tensors.entries, ('.scales', '.biases', '.weight'), where)
  modules = list(parts.modules())
  found = parts.rest(modules)
  for module in modules:
    override = options.get(module)
    module_options = override if isinstance(override, Mapping) else options
    found[f'{module}.weight'] = _weight(parts, module, module_options, dtype)
  return found


def _weight(parts: Parts, module: str, options: Mapping[str, Any], dtype: np.dtype) -> LazyMatrix:
  words, scales, least = parts.need_all(module, '.weight', '.scales', '.biases')
  rows, groups = scales.shape
  columns, bits = groups * int(options['group_size']), int(options.get('bits', 4))
  if words.dtype != np.uint32 or words.shape != (rows, columns * bits // 32):
    parts.refuse(
      f'{module}.weight is {words.dtype} {list(words.shape)}',
      f'uint32 words for {rows} x {columns} numbers of {bits} bits',
    )
  parts.check(module, biases=scales.shape)

  def make(part: slice) -> np.ndarray:
    by_input = Groups(columns, groups)
    q = unpack_bits(words.array()[part], bits).astype(np.float32)
    by_input.apply(np.multiply, q, scales.array()[part].astype(np.float32))
    by_input.apply(np.add, q, least.array()[part].astype(np.float32))
    return q

  return LazyMatrix((rows, columns), dtype, make, [words, scales, least])
