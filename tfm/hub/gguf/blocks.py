"""Dequantization of the tensor types of ggml to float32.

A block has one or two float16 scales (`d`, `dmin`) and small integers. The K types divide a block
of 256 numbers into groups, each with a 4-bit or 6-bit scale.
"""

from collections.abc import Callable
from typing import NamedTuple

import ml_dtypes
import numpy as np

Bytes = np.ndarray
_GROUP = 256


class Type(NamedTuple):
  """A tensor type.

  Attributes:
    name: The name in ggml.
    numbers: The number of values in a block.
    size: The size of a block in bytes.
    dequantize: Converts blocks, bytes `[n, size]`, to float32 `[n, numbers]`. None for floats.
    dtype: The dtype of plain floats, else None.
  """

  name: str
  numbers: int
  size: int
  dequantize: Callable[[Bytes], np.ndarray] | None = None
  dtype: np.dtype | None = None


def _half(blocks: Bytes, at: int) -> np.ndarray:
  """Return the float16 at a byte of each block, as float32 `[n, 1]`."""
  return np.ascontiguousarray(blocks[:, at : at + 2]).view(np.float16).astype(np.float32)


def _nibbles(part: Bytes) -> np.ndarray:
  """Return the low and the high four bits of each byte, `[n, 2, bytes]`."""
  return np.stack([part & 15, part >> 4], axis=1)


def _fields(part: Bytes, shifts: range, mask: int) -> np.ndarray:
  """Return the bits of each byte at each shift, `[n, len(shifts), bytes]`."""
  return (part[:, None, :] >> np.array(shifts, np.uint8)[:, None]) & np.uint8(mask)


def _fifth(part: Bytes) -> np.ndarray:
  """Return the high bits of the 32 five-bit numbers in each block, `[n, 32]`."""
  return np.unpackbits(part, axis=1, bitorder='little')


def _q4_0(b: Bytes) -> np.ndarray:
  return (_nibbles(b[:, 2:]).reshape(-1, 32).astype(np.float32) - 8) * _half(b, 0)


def _q4_1(b: Bytes) -> np.ndarray:
  return _nibbles(b[:, 4:]).reshape(-1, 32).astype(np.float32) * _half(b, 0) + _half(b, 2)


def _q5_0(b: Bytes) -> np.ndarray:
  q = _nibbles(b[:, 6:]).reshape(-1, 32) | _fifth(b[:, 2:6]) << 4
  return (q.astype(np.float32) - 16) * _half(b, 0)


def _q5_1(b: Bytes) -> np.ndarray:
  q = _nibbles(b[:, 8:]).reshape(-1, 32) | _fifth(b[:, 4:8]) << 4
  return q.astype(np.float32) * _half(b, 0) + _half(b, 2)


def _q8_0(b: Bytes) -> np.ndarray:
  return b[:, 2:].view(np.int8).astype(np.float32) * _half(b, 0)


def _q2_k(b: Bytes) -> np.ndarray:
  """Dequantize 16 groups, each with a 4-bit scale and a 4-bit minimum in one byte."""
  q = np.concatenate([_fields(b[:, at : at + 32], range(0, 8, 2), 3) for at in (16, 48)], axis=1)
  scales = b[:, :16]
  d, least = _half(b, 80) * (scales & 15), _half(b, 82) * (scales >> 4)
  return _grouped(d, q, least)


def _q3_k(b: Bytes) -> np.ndarray:
  """Dequantize 16 groups with 6-bit scales. An unset high bit subtracts 4."""
  q = np.concatenate([_fields(b[:, at : at + 32], range(0, 8, 2), 3) for at in (32, 64)], axis=1)
  high = _fields(b[:, :32], range(8), 1)
  low4 = _nibbles(b[:, 96:104]).reshape(-1, 16)
  high2 = _fields(b[:, 104:108], range(0, 8, 2), 3).reshape(-1, 16)
  scales = (low4 | high2 << 4).astype(np.float32) - 32
  return _grouped(_half(b, 108) * scales, q.astype(np.int8) - 4 * (1 - high.astype(np.int8)))


def _six_bits(part: Bytes) -> tuple[np.ndarray, np.ndarray]:
  """Return 8 scales and 8 minima, which are packed as 6-bit numbers into 12 bytes."""
  first, second, last = part[:, :4], part[:, 4:8], part[:, 8:]
  scales = np.concatenate([first & 63, last & 15 | (first >> 2) & 48], axis=1)
  minima = np.concatenate([second & 63, last >> 4 | (second >> 2) & 48], axis=1)
  return scales, minima


def _q4_k(b: Bytes) -> np.ndarray:
  scales, minima = _six_bits(b[:, 4:16])
  q = _nibbles(b[:, 16:].reshape(-1, 32))
  return _grouped(_half(b, 0) * scales, q, _half(b, 2) * minima)


def _q5_k(b: Bytes) -> np.ndarray:
  scales, minima = _six_bits(b[:, 4:16])
  low, high = _nibbles(b[:, 48:].reshape(-1, 32)), _fields(b[:, 16:48], range(8), 1)
  q = low.reshape(-1, 8, 32) | high << 4
  return _grouped(_half(b, 0) * scales, q, _half(b, 2) * minima)


def _q6_k(b: Bytes) -> np.ndarray:
  low = _nibbles(b[:, :128].reshape(-1, 64)).reshape(-1, _GROUP)
  high = _fields(b[:, 128:192].reshape(-1, 32), range(0, 8, 2), 3).reshape(-1, _GROUP)
  scales = np.ascontiguousarray(b[:, 192:208]).view(np.int8)
  return _grouped(_half(b, 208) * scales, (low | high << 4).astype(np.int8) - np.int8(32))


def _grouped(d: np.ndarray, q: np.ndarray, least: np.ndarray | None = None) -> np.ndarray:
  """Return d q - least for blocks of groups.

  Args:
    d: The scales of the groups, `[n, groups]`.
    q: The integers, 256 per block.
    least: The minima of the groups, `[n, groups]`. None for zeros.

  Returns:
    The numbers, float32 `[n, 256]`.
  """
  out = q.reshape(*d.shape, -1).astype(np.float32)
  out *= d.astype(np.float32)[:, :, None]
  if least is not None:
    out -= least.astype(np.float32)[:, :, None]
  return out.reshape(-1, _GROUP)


TYPES = {
  0: Type('F32', 1, 4, dtype=np.dtype(np.float32)),
  1: Type('F16', 1, 2, dtype=np.dtype(np.float16)),
  30: Type('BF16', 1, 2, dtype=np.dtype(ml_dtypes.bfloat16)),
  2: Type('Q4_0', 32, 18, _q4_0),
  3: Type('Q4_1', 32, 20, _q4_1),
  6: Type('Q5_0', 32, 22, _q5_0),
  7: Type('Q5_1', 32, 24, _q5_1),
  8: Type('Q8_0', 32, 34, _q8_0),
  10: Type('Q2_K', _GROUP, 84, _q2_k),
  11: Type('Q3_K', _GROUP, 110, _q3_k),
  12: Type('Q4_K', _GROUP, 144, _q4_k),
  13: Type('Q5_K', _GROUP, 176, _q5_k),
  14: Type('Q6_K', _GROUP, 210, _q6_k),
}

#: The names of unsupported types, for errors.
NAMES = {
  9: 'Q8_1', 15: 'Q8_K', 16: 'IQ2_XXS', 17: 'IQ2_XS', 18: 'IQ3_XXS', 19: 'IQ1_S', 20: 'IQ4_NL',
  21: 'IQ3_S', 22: 'IQ2_S', 23: 'IQ4_XS', 24: 'I8', 25: 'I16', 26: 'I32', 27: 'I64', 28: 'F64',
  29: 'IQ1_M', 34: 'TQ1_0', 35: 'TQ2_0', 39: 'MXFP4', 40: 'NVFP4',
}  # fmt: skip
