"""Weights of BitNet b1.58: ternary numbers with a scale, packed or not."""

from collections.abc import Iterator, Mapping
import dataclasses
from typing import Any

import numpy as np

from tfm.core import errors
from tfm.hub.tensors import Entry, Tensors
from tfm.zoo.rounding import is_online, options

#: Ternary numbers in one byte.
_PACKED = 4


@dataclasses.dataclass(frozen=True)
class _Ternary:
  """A ternary weight, multiplied with one scale or divided by it.

  Attributes:
    numbers: the ternary weight, or packed bytes. Bits 2 r and 2 r + 1 of the bytes in row i hold
      row i + r * rows / 4 of the weight, plus 1.
    scale: one number.
    divided: whether the weight is divided by the scale.
    dtype: dtype of the result.
  """

  numbers: Entry
  scale: Entry
  divided: bool
  dtype: np.dtype

  @property
  def shape(self) -> tuple[int, ...]:
    rows, *columns = self.numbers.shape
    return (rows * _PACKED if self._is_packed else rows, *columns)

  @property
  def _is_packed(self) -> bool:
    return self.numbers.dtype == np.uint8

  def array(self) -> np.ndarray:
    numbers, scale = self.numbers.array(), self.scale.array().astype(np.float32)
    if self._is_packed:
      numbers = np.concatenate([(numbers >> 2 * i & 3).astype(np.int8) - 1 for i in range(_PACKED)])
    factor = 1 / scale if self.divided else scale
    return (numbers.astype(np.float32) * factor).astype(self.dtype)

  def chunks(self) -> Iterator[np.ndarray]:
    yield self.array()

  def release(self) -> None:
    self.numbers.release()
    self.scale.release()


def read(
  tensors: Tensors, config: Mapping[str, Any], dtype: np.dtype, where: str
) -> dict[str, Entry]:
  """Return the tensors of a checkpoint with ternary weights dequantized.

  Args:
    tensors: The stored tensors. They are returned unchanged if weights are rounded online.
    config: The fields of `quantization_config`.
    dtype: The dtype of dequantized weights.
    where: The path of the config, for errors.

  Returns:
    All tensors by name.

  Raises:
    UserError: An option is not supported, or tensors are inconsistent.
  """
  if is_online(config, where):
    return dict(tensors.entries)
  divided = options(config, where)['linear_class'] == 'bitlinear'
  entries = {name: e for name, e in tensors.entries.items() if not name.endswith('.weight_scale')}
  for name in (n for n in tensors if n.endswith('.weight_scale')):
    weight, scale = name.removesuffix('_scale'), tensors.entries[name]
    if weight not in entries:
      raise errors.UserError(f'{where}: {name} has no {weight}. Expected a weight for each scale.')
    if scale.shape != (1,):
      raise errors.UserError(
        f'{where}: {name} has shape {list(scale.shape)}. Expected [1], one scale per weight.'
      )
    entries[weight] = _Ternary(entries[weight], scale, divided, dtype)
  return entries
