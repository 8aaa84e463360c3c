"""Weights of -1, 0 and 1 with a scale each, packed by four (BitNet b1.58)."""

from collections.abc import Iterator, Mapping
import dataclasses
from typing import Any

import numpy as np

from tfm.core import errors
from tfm.hub.tensors import Entry, Tensors
from tfm.zoo.rounding import is_online, options

#: Rows of a weight in one row of bytes.
_PACKED = 4


@dataclasses.dataclass(frozen=True)
class _Ternary:
  """A weight of -1, 0 and 1 times one scale, or divided by it.

  Attributes: numbers: bytes, of which byte row i holds row i + r * rows / 4 of the weight in bits 2
    r and 2 r + 1, each one more
      than it is; or the weight itself.
    scale: one number.
    divided: whether the weight is divided by the scale.
    dtype: of the product.
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
  tensors: Tensors, said: Mapping[str, Any], dtype: np.dtype, where: str
) -> dict[str, Entry]:
  """Return the tensors with every weight that has a scale as numbers; all of them if weights are
  rounded later.

  Raises:
    UserError: an option is not read, or the tensors do not fit together.
  """
  if is_online(said, where):
    return dict(tensors.entries)
  divided = options(said, where)['linear_class'] == 'bitlinear'
  found = {name: e for name, e in tensors.entries.items() if not name.endswith('.weight_scale')}
  for name in (n for n in tensors if n.endswith('.weight_scale')):
    weight, scale = name.removesuffix('_scale'), tensors.entries[name]
    if weight not in found or scale.shape != (1,):
      raise errors.UserError(
        f'{where}: {name} is {list(scale.shape)}, and {weight} is '
        f'{"there" if weight in found else "missing"}. '
        'Expected [1] and a weight.'
      )
    found[weight] = _Ternary(found[weight], scale, divided, dtype)
  return found
