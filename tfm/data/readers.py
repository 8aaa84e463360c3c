"""Read the documents of a file in the format of its suffix.

A format is a function and an entry of `READERS`. Files of other suffixes are text.
"""

from collections.abc import Callable, Iterable, Iterator
import json
from pathlib import Path
from typing import Any, NamedTuple

from tfm.core import errors
from tfm.core.errors import UserError
from tfm.data import blocks, utf8
from tfm.data.rejects import reject
from tfm.data.utf8 import Invalid, InvalidText

#: A document, in parts of its text.
Document = Iterable[str]

#: Rows of a table that are read at a time.
_ROWS = 1024


class Reading(NamedTuple):
  """How files are read.

  Attributes:
    field: The name of the text in JSON lines and tables.
    invalid: The choice for invalid text.
  """

  field: str = 'text'
  invalid: Invalid = 'refuse'


#: A place in a file (':12'), and the text there: a string, UTF-8 bytes or an `InvalidText`.
Values = Iterator[tuple[str, Any]]


def documents(path: Path, reading: Reading = Reading()) -> Iterator[Document]:
  """Yield the documents of a file. A text file is one document.

  Args:
    path: The file, which may be compressed.
    reading: The field and the choice for invalid text.

  Raises:
    UserError: The file cannot be read, a package is missing, or a document is invalid and the
      choice does not permit it.
  """
  reader = READERS.get(suffix(path))
  if reader is None:
    yield text(path, reading.invalid)
    return
  for place, value in reader(path, reading):
    try:
      yield [utf8.document(value, f'field {reading.field!r}', path, reading.invalid)]
    except InvalidText as error:
      if reading.invalid != 'skip':
        raise UserError(f'data.files: {path}{place}: {error}') from error
      reject('invalid documents skipped', str(path))


def text(path: Path, invalid: Invalid = 'refuse') -> Iterator[str]:
  """Yield the text of a UTF-8 file in parts, with unchanged line ends; see `documents`."""
  return utf8.decoded_blocks(blocks.blocks(path), path, invalid)


def is_text(path: Path) -> bool:
  """Return whether a file is one document of text."""
  return suffix(path) not in READERS


def is_plain(path: Path) -> bool:
  """Return whether the size of a file is about the size of its text."""
  return path.suffix.lower() not in blocks.OPENERS and suffix(path) not in _TABLES


def check_packages(path: Path) -> None:
  """Raise a UserError if a package that the format of a file needs is not installed."""
  if path.suffix.lower() == '.zst':
    blocks.zstandard(path)
  if suffix(path) in _TABLES:
    _pyarrow(path)


def suffix(path: Path) -> str:
  """Return the suffix of the format, which may precede that of the compression."""
  suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
  if suffixes and suffixes[-1] in blocks.OPENERS:
    suffixes.pop()
  return suffixes[-1] if suffixes else ''


def _json_lines(path: Path, reading: Reading) -> Values:
  for number, line in enumerate(blocks.lines(blocks.blocks(path)), start=1):
    if line.strip():
      yield f':{number}', _json_value(line, path, reading)


def _json_value(line: bytes, path: Path, reading: Reading) -> Any:
  """Return the field of a line, or an `InvalidText`."""
  try:
    row = json.loads(utf8.document(line, 'the line', path, reading.invalid))
  except InvalidText as error:
    return error
  except (ValueError, RecursionError) as error:
    return InvalidText(f'the line is not JSON ({error}). Expected an object on each line.')
  if not isinstance(row, dict):
    return InvalidText(
      f'the line is of type {type(row).__name__}. Expected an object on each line.'
    )
  if reading.field not in row:
    return InvalidText(f'the line lacks data.field: {errors.unknown("field", reading.field, row)}')
  return row[reading.field]


def _parquet(path: Path, reading: Reading) -> Values:
  library = _pyarrow(path)
  from pyarrow import parquet

  try:
    with parquet.ParquetFile(path) as file:
      _check_column(library, path, file.schema_arrow, reading.field)
      # A row group may be large, and batches keep only a part of it in memory.
      yield from _rows(library, file.iter_batches(_ROWS, columns=[reading.field]))
  except (library.ArrowException, OSError) as error:
    raise _table_error(path, error) from error


def _arrow(path: Path, reading: Reading) -> Values:
  """Read an Arrow file or stream. The `datasets` package writes streams."""
  library = _pyarrow(path)
  try:
    with library.memory_map(str(path)) as source:
      is_file = source.read(6) == b'ARROW1'
      source.seek(0)
      if is_file:
        reader = library.ipc.open_file(source)
        batches = map(reader.get_batch, range(reader.num_record_batches))
      else:
        reader = batches = library.ipc.open_stream(source)
      _check_column(library, path, reader.schema, reading.field)
      yield from _rows(library, (batch.select([reading.field]) for batch in batches))
  except (library.ArrowException, OSError) as error:
    raise _table_error(path, error) from error


def _rows(library: Any, batches: Iterable[Any]) -> Values:
  """Yield the values of batches with one column, as bytes."""
  row = 0
  for batch in batches:
    # Values of a string column are not checked, so they are read as bytes.
    for start in range(0, batch.num_rows, _ROWS):
      column = batch.column(0).slice(start, _ROWS).cast(library.large_binary())
      for value in column.to_pylist():
        yield f': row {(row := row + 1)}', value


def _check_column(library: Any, path: Path, schema: Any, field: str) -> None:
  if field not in schema.names:
    raise UserError(f'data.field: {path}: {errors.unknown("column", field, schema.names)}')
  kind, types = schema.field(field).type, library.types
  kind = kind.value_type if types.is_dictionary(kind) else kind
  texts = (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
  if not any(is_kind(kind) for is_kind in (*texts, types.is_string_view, types.is_binary_view)):
    raise UserError(f'data.field: {path}: column {field!r} is {kind}. Expected text.')


def _table_error(path: Path, error: Exception) -> UserError:
  if isinstance(error, OSError) and error.errno is not None:
    return blocks.unreadable(path, error)
  return blocks.damaged(path, str(error).strip().partition('\n')[0])


def _pyarrow(path: Path) -> Any:
  return blocks.package('pyarrow', f'{path} needs')


#: Formats with many documents in a file, by suffix.
READERS: dict[str, Callable[[Path, Reading], Values]] = {
  '.jsonl': _json_lines,
  '.ndjson': _json_lines,
  '.parquet': _parquet,
  '.arrow': _arrow,
}
#: Formats that are compressed inside and need pyarrow.
_TABLES = ('.parquet', '.arrow')
