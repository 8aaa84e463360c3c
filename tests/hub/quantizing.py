"""Writers of quantized weights, one number at a time from the definition of each format.

Each function draws random integers and scales. It returns the stored tensors of a module and the
dequantized weight.
"""

import json

import ml_dtypes
import numpy as np

RNG = np.random.default_rng(0)

#: arXiv:2305.14314, appendix E.
NF4 = np.array([
  -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
  -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
  0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
  0.7229568362236023, 1.0,
], np.float32)  # fmt: skip
FP4 = np.array([0, 0.0052, 0.6667, 1, 0.3333, 0.5, 0.1667, 0.25], np.float32)
FP4 = np.concatenate([FP4, -FP4])


def packed(rows, bits, order=None):
  """Pack integers along the last axis into 32-bit words.

  Args:
    rows: Integers `[rows, columns]`.
    bits: The bits of an integer.
    order: The column of each field in a word. None for ascending columns.

  Returns:
    The words, int32 `[rows, columns * bits / 32]`.
  """
  n = 32 // bits
  out = np.zeros((len(rows), rows.shape[1] // n), np.uint64)
  for i in range(rows.shape[1]):
    word, field = divmod(i, n)
    place = i if order is None else word * n + order[field]
    out[:, word] += rows[:, place].astype(np.uint64) << np.uint64(bits * field)
  return out.astype(np.uint32).view(np.int32)


def _scales(*shape):
  return RNG.uniform(1e-3, 1e-1, shape).astype(np.float16)


def gptq(shape, bits=4, size=16, ordered=False, second=False):
  """Return a GPTQ weight with unsigned integers and zero points.

  Args:
    shape: Rows and columns of the weight.
    bits: The bits of an integer.
    size: The columns of a group.
    ordered: Whether columns are assigned to groups at random.
    second: Whether the version is 2. Version 1 stores zero points minus one.

  Returns:
    The stored tensors and the dequantized weight.
  """
  rows, columns = shape
  groups = columns // size
  group = (
    RNG.permutation(np.repeat(np.arange(groups), size))
    if ordered
    else np.repeat(np.arange(groups), size)
  )
  q, zero = RNG.integers(0, 1 << bits, shape), RNG.integers(1, 1 << bits, (groups, rows))
  scale = _scales(groups, rows)
  expected = np.empty(shape, np.float32)
  for i in range(columns):
    expected[:, i] = (q[:, i] - zero[group[i]]) * scale[group[i]].astype(np.float32)
  return {
    'qweight': packed(q, bits).T.copy(), 'qzeros': packed(zero - (not second), bits),
    'scales': scale, 'g_idx': group.astype(np.int32),
  }, expected  # fmt: skip


def awq(shape, size=16):
  """Return an AWQ weight (GEMM): `[in, out]`, with word fields in the order 0 2 4 6 1 3 5 7."""
  rows, columns = shape
  q, zero = RNG.integers(0, 16, (columns, rows)), RNG.integers(0, 16, (columns // size, rows))
  scale, order = _scales(columns // size, rows), (0, 2, 4, 6, 1, 3, 5, 7)
  wide = lambda a: np.repeat(a.astype(np.float32), size, axis=0)
  expected = (q - wide(zero)) * wide(scale)
  return {
    'qweight': packed(q, 4, order),
    'qzeros': packed(zero, 4, order),
    'scales': scale,
  }, expected.T


def int8_rows(shape):
  """Return an int8 weight of bitsandbytes."""
  q, largest = (
    RNG.integers(-127, 128, shape).astype(np.int8),
    RNG.uniform(0.1, 3, shape[0]).astype(np.float32),
  )
  expected = q.astype(np.float32) * largest[:, None] * np.float32(7.874015718698502e-3)
  return {'weight': q, 'SCB': largest, 'weight_format': np.array(0, np.uint8)}, expected


def four_bits(shape, kind='nf4', nested=False, block=64):
  """Return an NF4 or FP4 weight of bitsandbytes, the first number in the high bits.

  Args:
    shape: Rows and columns of the weight.
    kind: 'nf4' or 'fp4'.
    nested: Whether the block scales are quantized, too.
    block: The numbers in a block.

  Returns:
    The stored tensors and the dequantized weight.
  """
  size, table = shape[0] * shape[1], {'nf4': NF4, 'fp4': FP4}[kind]
  codes, blocks = RNG.integers(0, 16, size), size // block
  state = {'quant_type': kind, 'blocksize': block, 'dtype': 'bfloat16', 'shape': list(shape)}
  largest, extra = RNG.uniform(0.1, 3, blocks).astype(np.float32), {}
  stored = largest
  if nested:
    stored, levels = (
      RNG.integers(0, 256, blocks).astype(np.uint8),
      np.linspace(-1, 1, 256, dtype=np.float32),
    )
    outer, offset = RNG.uniform(0.1, 1, -(-blocks // 4)).astype(np.float32), 1.5
    largest = np.array(
      [levels[c] * outer[i // 4] + np.float32(offset) for i, c in enumerate(stored)], np.float32
    )
    state |= {'nested_blocksize': 4, 'nested_offset': offset, 'nested_dtype': 'float32'}
    extra = {'weight.nested_absmax': outer, 'weight.nested_quant_map': levels}
  expected = np.array(
    [table[c] * largest[i // block] for i, c in enumerate(codes)], np.float32
  ).reshape(shape)
  high, low = codes[::2].astype(np.uint8), codes[1::2].astype(np.uint8)
  text = np.frombuffer(json.dumps(state).encode(), np.uint8)
  return {
    'weight': (high << 4 | low)[:, None], 'weight.absmax': stored, 'weight.quant_map': table,
    **extra, f'weight.quant_state.bitsandbytes__{kind}': text,
  }, expected  # fmt: skip


def compressed(shape, strategy='channel', zeros=False, dtype=np.int8, size=16):
  """Return an 8-bit weight of compressed-tensors.

  Args:
    shape: Rows and columns of the weight.
    strategy: The unit with a scale: tensor, channel, group or block (of 20 x 40).
    zeros: Whether there are zero points.
    dtype: The dtype of the numbers.
    size: The columns of a group.

  Returns:
    The stored tensors and the dequantized weight.
  """
  rows, columns = shape
  block = {'tensor': shape, 'channel': (1, columns), 'group': (1, size), 'block': (20, 40)}[
    strategy
  ]
  grid = -(-rows // block[0]), -(-columns // block[1])
  if dtype == np.int8:
    q = RNG.integers(-128, 128, shape).astype(np.int8)
  else:
    q = RNG.standard_normal(shape).astype(dtype)
  scale = RNG.uniform(1e-3, 1e-1, grid).astype(np.float32).astype(ml_dtypes.bfloat16)
  zero = RNG.integers(-128, 128, grid).astype(np.int8)
  wide = lambda a: np.kron(a.astype(np.float32), np.ones(block, np.float32))[:rows, :columns]
  expected = (q.astype(np.float32) - (wide(zero) if zeros else 0)) * wide(scale)
  arrays = {'weight': q, 'weight_scale': scale if strategy != 'tensor' else scale.reshape(1)}
  return arrays | ({'weight_zero_point': zero} if zeros else {}), expected


def pack_quantized(shape, bits=4, size=16, zeros=False, ordered=False):
  """Return a packed weight of compressed-tensors, as q + 2^(bits - 1) along the inputs.

  Args:
    shape: Rows and columns of the weight.
    bits: The bits of an integer.
    size: The columns of a group.
    zeros: Whether there are zero points, which are packed along the outputs.
    ordered: Whether columns are assigned to groups at random.

  Returns:
    The stored tensors and the dequantized weight.
  """
  rows, columns = shape
  half, groups = 1 << (bits - 1), columns // size
  group = (
    RNG.permutation(np.repeat(np.arange(groups), size))
    if ordered
    else np.repeat(np.arange(groups), size)
  )
  q, zero = RNG.integers(-half, half, shape), RNG.integers(-half, half, (rows, groups))
  scale = _scales(rows, groups)
  expected = (q - (zero[:, group] if zeros else 0)) * scale.astype(np.float32)[:, group]
  arrays = {
    'weight_packed': packed(q + half, bits),
    'weight_scale': scale,
    'weight_shape': np.array(shape, np.int64),
  }
  arrays |= {'weight_zero_point': packed((zero + half).T, bits).T.copy()} if zeros else {}
  return arrays | ({'weight_g_idx': group.astype(np.int32)} if ordered else {}), expected.astype(
    np.float32
  )


def mlx(shape, bits=4, size=16):
  """Return an affine weight of MLX, scale q + bias per group of inputs.

  Args:
    shape: Rows and columns of the weight.
    bits: The bits of an integer.
    size: The columns of a group.

  Returns:
    The stored tensors and the dequantized weight.
  """
  rows, columns = shape
  q, scale, least = (
    RNG.integers(0, 1 << bits, shape),
    _scales(rows, columns // size),
    _scales(rows, columns // size),
  )
  wide = lambda a: np.repeat(a.astype(np.float32), size, axis=1)
  arrays = {'weight': packed(q, bits).view(np.uint32), 'scales': scale, 'biases': least}
  return arrays, q.astype(np.float32) * wide(scale) + wide(least)


def fbgemm(shape):
  """Return a float8 weight of FBGEMM with a scale per row."""
  q, scale = (
    RNG.standard_normal(shape).astype(ml_dtypes.float8_e4m3fn),
    RNG.uniform(0.1, 2, (shape[0], 1)),
  )
  scale = scale.astype(np.float32)
  return {'weight': q, 'weight_scale': scale}, q.astype(np.float32) * scale
