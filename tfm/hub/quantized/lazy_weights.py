"""Building blocks of formats: their input, lazy matrices, bit fields and groups of columns."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
from typing import Any, NamedTuple, NoReturn

import numpy as np

from tfm.core import errors
from tfm.hub.tensors import Entry, Tensors

#: The number of values that are dequantized at a time.
_CHUNK = 1 << 20


class Quantized(NamedTuple):
  """A quantized checkpoint, the input of the readers of all formats.

  Attributes:
    tensors: The stored tensors.
    options: The fields of `quantization_config`.
    dtype: The dtype of dequantized weights.
    where: The path of the config, for errors.
  """

  tensors: Tensors
  options: Mapping[str, Any]
  dtype: np.dtype
  where: str


@dataclasses.dataclass(frozen=True)
class LazyMatrix:
  """A matrix `[out, in]` that is dequantized on access, a few rows at a time.

  Leading axes stack several matrices. Their rows are numbered consecutively.

  Attributes:
    shape: The shape of the matrix.
    dtype: The dtype of the matrix. Each number is rounded once.
    make: Returns some rows in float32.
    sources: The tensors that `make` reads.
  """

  shape: tuple[int, ...]
  dtype: np.dtype
  make: Callable[[slice], np.ndarray]
  sources: Sequence[Entry]

  def array(self) -> np.ndarray:
    out = np.empty(self.shape, self.dtype)
    rows = out.reshape(-1, self.shape[-1])
    step = max(1, _CHUNK // self.shape[-1])
    for start in range(0, len(rows), step):
      part = slice(start, min(start + step, len(rows)))
      rows[part] = self.make(part)
    return out

  def chunks(self) -> Iterator[np.ndarray]:
    yield self.array()

  def release(self) -> None:
    for source in self.sources:
      source.release()


def unpack_bits(words: np.ndarray, bits: int) -> np.ndarray:
  """Unpack the bit fields of words along the last axis, lowest bits first.

  Args:
    words: Words of any integer dtype.
    bits: The bits of a field: 1, 2, 4 or 8.

  Returns:
    The fields as uint8.
  """
  parts = np.ascontiguousarray(words).view(np.uint8)
  if bits == 8:
    return parts
  shifts = np.arange(0, 8, bits, dtype=np.uint8)
  fields = (parts[..., None] >> shifts) & np.uint8((1 << bits) - 1)
  return fields.reshape(*parts.shape[:-1], -1)


class Groups:
  """The groups of the columns of a matrix.

  Args:
    columns: The number of columns.
    groups: The number of groups.
    order: The group of each column. None or negative numbers mean consecutive groups of equal size,
      of which the last may be smaller.
    size: The columns of a consecutive group. None divides columns evenly.
  """

  def __init__(
    self, columns: int, groups: int, order: np.ndarray | None = None, size: int | None = None
  ):
    size = size or -(-columns // groups)
    self.group = np.arange(columns) // size
    self.size = size if size * groups == columns else None
    if order is None or not len(order) or bool(np.any(order < 0)):
      return
    if not np.array_equal(order, self.group):
      self.group, self.size = order.astype(np.int64), None

  def apply(self, function: Callable[..., Any], q: np.ndarray, values: np.ndarray) -> None:
    """Apply a ufunc in place to a matrix and the values of its groups.

    Args:
      function: A ufunc with two inputs, such as `np.multiply`.
      q: The matrix `[rows, columns]`, which receives the result.
      values: The values of the groups, `[rows, groups]`.
    """
    if self.size is None:
      function(q, values[:, self.group], out=q)
      return
    grouped = q.reshape(len(q), -1, self.size)
    function(grouped, values[:, :, None], out=grouped)


class Parts:
  """Access to the tensors of quantized weights by module.

  Args:
    entries: All tensors by name.
    endings: The suffixes of the parts of a weight. Every weight has the first one.
    where: The path of the config, for errors.
  """

  def __init__(self, entries: Mapping[str, Entry], endings: Sequence[str], where: str):
    self.entries, self.endings, self.where = entries, endings, where

  def modules(self) -> Iterator[str]:
    """Yield the modules with quantized weights."""
    first = self.endings[0]
    return (name.removesuffix(first) for name in self.entries if name.endswith(first))

  def rest(self, modules: Sequence[str]) -> dict[str, Entry]:
    """Return the tensors that are not parts of these modules."""
    used = {module + ending for module in modules for ending in self.endings}
    return {name: entry for name, entry in self.entries.items() if name not in used}

  def get(self, module: str, ending: str) -> Entry | None:
    """Return a part of a module, or None."""
    return self.entries.get(module + ending)

  def need(self, module: str, ending: str) -> Entry:
    """Return a part of a module.

    Raises:
      UserError: The part is missing.
    """
    if (found := self.get(module, ending)) is None:
      raise errors.UserError(
        f'{self.where}: {module}{ending} is missing. Expected it with {module}{self.endings[0]}.'
      )
    return found

  def need_all(self, module: str, *endings: str) -> list[Entry]:
    """Return several parts of a module.

    Raises:
      UserError: A part is missing.
    """
    return [self.need(module, ending) for ending in endings]

  def check(self, module: str, **shapes: tuple[int, ...]) -> None:
    """Check the shapes of parts of a module.

    Args:
      module: The module.
      **shapes: The expected shape by suffix, without the leading dot.

    Raises:
      UserError: A part has another shape.
    """
    for name, shape in shapes.items():
      entry = self.need(module, f'.{name}')
      if entry.shape != shape:
        self.refuse(f'{module}.{name} is {entry.dtype} {list(entry.shape)}', list(shape))

  def refuse(self, what: str, expected: Any) -> NoReturn:
    """Raise a UserError about tensors that do not match the format."""
    raise errors.UserError(f'{self.where}: {what}. Expected {expected}.')


def check_options(where: str, options: Mapping[str, Any], **known: tuple[Any, ...]) -> None:
  """Check that options have supported values.

  Args:
    where: The path of the config, for errors.
    options: The options.
    **known: The supported values by option. The first one is the default.

  Raises:
    UserError: An option has another value.
  """
  for name, values in known.items():
    if (value := options.get(name, values[0])) not in values:
      listed = ', '.join(repr(v) for v in values if v is not None)
      raise errors.UserError(
        f'{where}: quantization_config: {name} is {value!r}. Expected {listed}.'
      )
