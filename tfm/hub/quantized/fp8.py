"""Weights in float8 with a scale per block, row or matrix (DeepSeek-V3, Llama 3.1 405B)."""

from collections.abc import Iterator, Mapping
import dataclasses
import math
from typing import Any

import ml_dtypes
import numpy as np

from tfm.core import errors
from tfm.hub.tensors import Entry, Tensors

#: The number of values in a chunk.
_CHUNK = 1 << 20


@dataclasses.dataclass(frozen=True)
class _Scaled:
  """A lazy tensor of float8 numbers times the scale of their block.

  Attributes:
    numbers: The float8 tensor `[..., rows, columns]`.
    scale: The scales of the blocks.
    block: Rows and columns of a block. The last blocks may be smaller.
    dtype: The dtype of the result.
  """

  numbers: Entry
  scale: Entry
  block: tuple[int, int]
  dtype: np.dtype

  @property
  def shape(self) -> tuple[int, ...]:
    return self.numbers.shape

  def array(self) -> np.ndarray:
    numbers, out = self.numbers.array(), np.empty(self.shape, self.dtype)
    (rows, columns), (height, width) = self.shape[-2:], self.block
    scale = self.scale.array().astype(np.float32)
    scale = scale.reshape(*self.shape[:-2], -(-rows // height), -(-columns // width))
    step = max(1, _CHUNK // columns)
    for at in np.ndindex(self.shape[:-2]):
      for start in range(0, rows, step):
        part = slice(start, min(start + step, rows))
        block_rows = np.arange(part.start, part.stop) // height
        scales = scale[at][block_rows].repeat(width, -1)[:, :columns]
        out[at][part] = numbers[at][part].astype(np.float32) * scales
    return out

  def chunks(self) -> Iterator[np.ndarray]:
    yield self.array()

  def release(self) -> None:
    self.numbers.release()
    self.scale.release()


def read(
  tensors: Tensors, options: Mapping[str, Any], dtype: np.dtype, where: str
) -> dict[str, Entry]:
  """Return the tensors of a checkpoint with float8 weights dequantized.

  Weights have a scale per block or per matrix.

  Args:
    tensors: The stored tensors.
    options: The fields of `quantization_config`.
    dtype: The dtype of dequantized weights.
    where: The path of the config, for errors.

  Returns:
    All tensors by name.

  Raises:
    UserError: An option is not supported, or tensors are inconsistent.
  """
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
    found[name] = _Scaled(tensors.entries[name], scale, (height, width), dtype)
  return found


def read_rows(
  tensors: Tensors, options: Mapping[str, Any], dtype: np.dtype, where: str
) -> dict[str, Entry]:
  """Return the tensors of a checkpoint with FBGEMM's float8 weights dequantized.

  Weights have a scale per row.

  Args:
    tensors: The stored tensors.
    options: The fields of `quantization_config`.
    dtype: The dtype of dequantized weights.
    where: The path of the config, for errors.

  Returns:
    All tensors by name.

  Raises:
    UserError: Tensors are inconsistent.
  """
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
    found[name] = _Scaled(tensors.entries[name], scale, (1, columns), dtype)
  return found
