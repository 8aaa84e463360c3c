"""Weights of GPTQ (arXiv:2210.17323) and AWQ (arXiv:2306.00978): grouped low-bit integers.

Each group of inputs has a scale and a zero point. Both formats store the weight as `[in, out]` in
32-bit words. GPTQ packs along the inputs, AWQ along the outputs.
"""

from collections.abc import Sequence

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

#: Bits -> a word with a one in each field, which version 1 subtracts from zero points.
_MINUS_ONE = {2: 0x55555555, 4: 0x11111111, 8: 0x01010101}
#: The column of each field in a word of AWQ.
_AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def read_gptq(checkpoint: Quantized) -> dict[str, Entry]:
  """Return the tensors of a checkpoint with GPTQ weights dequantized."""
  tensors, options, dtype, where = checkpoint
  check_options(
    where, options, checkpoint_format=('gptq', 'gptq_v2', None), is_marlin_format=(False, None)
  )
  check_options(where, options, bits=(4, 8, 2), pack_dtype=('int32', None), planar=(False, None))
  if 'bits' not in options:
    check_options(where, {'bits': None}, bits=(4, 8, 2))
  first_version = options.get('checkpoint_format') != 'gptq_v2'
  parts = Parts(tensors.entries, ('.qweight', '.qzeros', '.scales', '.g_idx'), where)
  modules = list(parts.modules())
  found = parts.rest(modules)
  for module in modules:
    found[f'{module}.weight'] = _gptq(
      parts, module, int(options['bits']), int(options.get('group_size', -1)), first_version, dtype
    )
  return found


def _gptq(
  parts: Parts, module: str, bits: int, size: int, first_version: bool, dtype: np.dtype
) -> LazyMatrix:
  words, zeros, scales = parts.need_all(module, '.qweight', '.qzeros', '.scales')
  order = parts.get(module, '.g_idx')
  # Modules may override the options.
  if order is not None and len(order.shape) == 1 and order.shape[0]:
    bits = words.shape[0] * 32 // order.shape[0]
  if bits not in _MINUS_ONE:
    parts.refuse(
      f'{module}.qweight is {list(words.shape)}, with {bits} bits per number', '2, 4 or 8 bits'
    )
  inputs, outputs = words.shape[0] * 32 // bits, words.shape[1]
  groups = scales.shape[0]
  if order is None:
    groups = 1 if size < 0 else -(-inputs // size)
  parts.check(module, qzeros=(groups, outputs * bits // 32), scales=(groups, outputs))
  if order is not None:
    parts.check(module, g_idx=(inputs,))

  def make(part: slice) -> np.ndarray:
    """Return scale (q - zero) for some outputs."""
    if order is None:
      by_input = Groups(inputs, groups, size=size if size > 0 else None)
    else:
      by_input = Groups(inputs, groups, order.array())
    stored = zeros.array().view(np.uint32)
    if first_version:
      stored = stored + np.uint32(_MINUS_ONE[bits])
    q = unpack_bits(words.array()[:, part].T, bits).astype(np.float32)
    by_input.apply(np.subtract, q, _columns(stored, part, bits).T)
    by_input.apply(np.multiply, q, scales.array()[:, part].T.astype(np.float32))
    return q

  sources = [words, zeros, scales, *([] if order is None else [order])]
  return LazyMatrix((outputs, inputs), dtype, make, sources)


def _columns(
  packed: np.ndarray, part: slice, bits: int, order: Sequence[int] | None = None
) -> np.ndarray:
  """Return some columns of integers that are packed along columns.

  Args:
    packed: The words, `[rows, columns * bits / 32]`.
    part: The columns to return.
    bits: The bits of an integer.
    order: The column of each field in a word. None for ascending columns.
  """
  n = 32 // bits
  first = part.start // n
  q = unpack_bits(packed[:, first : -(-part.stop // n)], bits)
  if order is not None:
    q = q.reshape(len(packed), -1, n)[..., np.argsort(order)].reshape(len(packed), -1)
  return q[:, part.start - first * n : part.stop - first * n]


def read_awq(checkpoint: Quantized) -> dict[str, Entry]:
  """Return the tensors of a checkpoint with AWQ weights dequantized."""
  tensors, options, dtype, where = checkpoint
  bits = options.get('bits', options.get('w_bit', 4))
  size = options.get('group_size', options.get('q_group_size', 128))
  version = str(options.get('version', 'gemm')).lower()
  check_options(where, {**options, 'bits': bits, 'version': version}, bits=(4,), version=('gemm',))
  parts = Parts(tensors.entries, ('.qweight', '.qzeros', '.scales'), where)
  modules = list(parts.modules())
  found = parts.rest(modules)
  for module in modules:
    found[f'{module}.weight'] = _awq(parts, module, int(size), dtype)
  return found


def _awq(parts: Parts, module: str, size: int, dtype: np.dtype) -> LazyMatrix:
  words, zeros, scales = parts.need_all(module, '.qweight', '.qzeros', '.scales')
  inputs, outputs = words.shape[0], words.shape[1] * 8
  groups = 1 if size < 0 else -(-inputs // size)
  parts.check(module, qzeros=(groups, outputs // 8), scales=(groups, outputs))

  def make(part: slice) -> np.ndarray:
    """Return scale (q - zero) for some outputs."""
    by_input = Groups(inputs, groups, size=size if size > 0 else None)
    q = np.ascontiguousarray(_columns(words.array(), part, 4, _AWQ_ORDER).T).astype(np.float32)
    by_input.apply(np.subtract, q, _columns(zeros.array(), part, 4, _AWQ_ORDER).T)
    by_input.apply(np.multiply, q, scales.array()[:, part].T.astype(np.float32))
    return q

  return LazyMatrix((outputs, inputs), dtype, make, [words, zeros, scales])
