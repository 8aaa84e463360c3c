"""Find NaN and infinite numbers in weights while they are read."""

import numpy as np

#: Numbers that are compared at a time: both passes read them from the cache of the processor.
_BLOCK = 1 << 16
#: float dtype -> the integers of its size, and the bits of infinity.
_BITS = {
  'float16': (np.int16, np.uint16, 0x7C00),
  'bfloat16': (np.int16, np.uint16, 0x7F80),
  'float32': (np.int32, np.uint32, 0x7F80_0000),
  'float64': (np.int64, np.uint64, 0x7FF0_0000_0000_0000),
}


def is_finite(array: np.ndarray) -> bool:
  """Return whether all numbers of an array are finite, in one or two fast passes.

  As integers of its size, NaN and infinity are at least infinity: signed ones if they are positive,
  unsigned ones, with the sign bit, if they are negative.

  Args:
    array: Numbers. Those of dtypes other than float16, bfloat16, float32 and float64 pass.
  """
  if array.dtype.name not in _BITS or not array.size:
    return True
  signed, unsigned, infinity = _BITS[array.dtype.name]
  negative = infinity | 1 << (8 * array.dtype.itemsize - 1)
  flat = np.ascontiguousarray(array).reshape(-1)
  if flat.dtype.name in ('float32', 'float64'):
    # One pass is enough if the sum is finite. It may also overflow.
    with np.errstate(all='ignore'):
      if np.isfinite(np.sum(flat)):
        return True
  for start in range(0, flat.size, _BLOCK):
    block = flat[start : start + _BLOCK]
    if block.view(signed).max() >= infinity or block.view(unsigned).max() >= negative:
      return False
  return True
