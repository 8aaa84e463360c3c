"""Rows of text tables: comma-separated, tab-separated, or JSON lines."""

from collections.abc import Iterator
import csv
import json
from pathlib import Path
from typing import Any

from tfm.core.errors import UserError, unknown

#: Columns may hold whole documents.
_FIELD_SIZE = 1 << 28


def rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
  """Yield the values of some columns of a table.

  `.csv` has commas and quoted values, `.jsonl` an object in each line, and other files tabs without
  quotes. The first line of `.csv` and other files names the columns.

  Args:
    path: The file, UTF-8.
    columns: Names of columns.

  Yields:
    The values of each row.

  Raises:
    UserError: The file cannot be read, or a row lacks a column.
  """
  try:
    with open(path, encoding='utf-8', newline='') as file:
      for number, row in _numbered(path, file):
        values = []
        for name in columns:
          value = row.get(name)
          if value is None:
            known = [key for key in row if isinstance(key, str)]
            raise UserError(f'data.files: {path}: row {number}: {unknown("column", name, known)}')
          values.append(value if isinstance(value, str) else json.dumps(value))
        yield tuple(values)
  except OSError as error:
    raise UserError(
      f'data.files: cannot read {path} ({error.strerror}). Expected a readable file.'
    ) from error
  except ValueError as error:
    raise UserError(f'data.files: {path}: {error}. Expected UTF-8 text with rows.') from error


def _numbered(path: Path, file: Any) -> Iterator[tuple[int, dict[str, Any]]]:
  """Yield rows by column, with their numbers from 1."""
  if path.suffix == '.jsonl':
    yield from enumerate(map(json.loads, filter(str.strip, file)), 1)
    return
  csv.field_size_limit(_FIELD_SIZE)
  if path.suffix == '.csv':
    yield from enumerate(csv.DictReader(file), 1)
  else:
    yield from enumerate(csv.DictReader(file, delimiter='\t', quoting=csv.QUOTE_NONE), 1)
