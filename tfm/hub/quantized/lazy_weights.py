"""Shared by several formats: weights made a few rows at a time, bit fields, and groups of columns."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
import math
from typing import Any, NoReturn

import numpy as np

from tfm.core import errors
from tfm.hub.tensors import Entry

#: Numbers that are made at a time.
_CHUNK = 1 << 20


@dataclasses.dataclass(frozen=True)
class LazyMatrix:
  """A matrix `[out, in]` of `dtype`.

  Attributes:
    shape, dtype: of the matrix.
    make: rows -> float32 numbers, each then rounded to `dtype` once.
    sources: the tensors that `make` reads.
  """

  shape: tuple[int, ...]
  dtype: np.dtype
  make: Callable[[slice], np.ndarray]
  sources: Sequence[Entry]

  def array(self) -> np.ndarray:
    out = np.empty(self.shape, self.dtype)
    step = max(1, _CHUNK // math.prod(self.shape[1:]))
    for start in range(0, len(out), step):
      part = slice(start, min(start + step, len(out)))
      out[part] = self.make(part)
    return out

  def chunks(self) -> Iterator[np.ndarray]:
    yield self.array()

  def release(self) -> None:
    for source in self.sources:
      source.release()


def unpack_bits(words: np.ndarray, bits: int) -> np.ndarray:
  """Return the bit fields of words along the last axis as uint8, the lowest bits first; `bits`
  divide 8.
  """
  parts = np.ascontiguousarray(words).view(np.uint8)
  if bits == 8:
    return parts
  shifts = np.arange(0, 8, bits, dtype=np.uint8)
  found = (parts[..., None] >> shifts) & np.uint8((1 << bits) - 1)
  return found.reshape(*parts.shape[:-1], -1)


class Groups:
  """The group of each column of a matrix, and values of the groups put onto it.

  Args:
    columns, groups: how many there are.
    order: the group of each column. None, or negative numbers: one group after the other, all of
    one size but the last.
    size: columns of a group. None divides them evenly.
  """

  def __init__(
    self, columns: int, groups: int, order: np.ndarray | None = None, size: int | None = None
  ):
    size = size or -(-columns // groups)
    usual = np.arange(columns) // size
    ordered = (
      order is not None
      and len(order) > 0
      and bool(np.all(order >= 0))
      and not np.array_equal(order, usual)
    )
    self.group = order.astype(np.int64) if order is not None and ordered else usual
    self.size = size if not ordered and size * groups == columns else None

  def put(self, function: Callable[..., Any], q: np.ndarray, values: np.ndarray) -> None:
    """Apply a ufunc to `q` `[rows, columns]` and the values `[rows, groups]` of its groups, in
    place.
    """
    if self.size is None:
      function(q, values[:, self.group], out=q)
      return
    grouped = q.reshape(len(q), -1, self.size)
    function(grouped, values[:, :, None], out=grouped)


class Parts:
  """The tensors that make up the quantized weights of a checkpoint, by module.

  Args:
    entries: all tensors by name.
    endings: how the names of the parts end, the first of which every weight has.
    where: the config, for errors.
  """

  def __init__(self, entries: Mapping[str, Entry], endings: Sequence[str], where: str):
    self.entries, self.endings, self.where = entries, endings, where

  def modules(self) -> Iterator[str]:
    """Yield the modules that have the first part."""
    first = self.endings[0]
    return (name.removesuffix(first) for name in self.entries if name.endswith(first))

  def rest(self, modules: Sequence[str]) -> dict[str, Entry]:
    """Return the tensors that are no part of these modules."""
    own = {module + ending for module in modules for ending in self.endings}
    return {name: entry for name, entry in self.entries.items() if name not in own}

  def get(self, module: str, ending: str) -> Entry | None:
    """Return a part, or None."""
    return self.entries.get(module + ending)

  def need(self, module: str, ending: str) -> Entry:
    """Return a part.

    Raises:
      UserError: it is missing.
    """
    if (found := self.get(module, ending)) is None:
      raise errors.UserError(
        f'{self.where}: {module}{ending} is missing. Expected it, as {module}{self.endings[0]} is '
        f'there.'
      )
    return found

  def check(self, module: str, **shapes: tuple[int, ...]) -> None:
    """Check the shapes of parts by their endings, given without the leading dot.

    Raises:
      UserError: one has another shape.
    """
    for name, shape in shapes.items():
      entry = self.need(module, f'.{name}')
      if entry.shape != shape:
        self.refuse(f'{module}.{name} is {entry.dtype} {list(entry.shape)}', list(shape))

  def refuse(self, what: str, expected: Any) -> NoReturn:
    """Raise the error about tensors that do not fit the format."""
    raise errors.UserError(f'{self.where}: {what}. Expected {expected}.')


def check_options(where: str, options: Mapping[str, Any], **known: tuple[Any, ...]) -> None:
  """Check that options have a supported value; the first is the default.

  Raises:
    UserError: one has another value.
  """
  for name, values in known.items():
    if (value := options.get(name, values[0])) not in values:
      listed = ', '.join(repr(v) for v in values if v is not None)
      raise errors.UserError(f'{where}: quantization_config: {name} is {value!r}. Known: {listed}.')
