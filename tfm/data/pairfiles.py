"""Read pairs of texts from tab-separated files, JSON lines, or two parallel files."""

from collections.abc import Iterator, Mapping
import itertools
import json
from pathlib import Path
from typing import Any, NamedTuple

from tfm.core.errors import UserError, unknown
from tfm.data import readers

#: Endings of files with one JSON object in each line. Others are tab-separated.
JSON_LINES = ('.jsonl', '.ndjson', '.json')
#: The default names of source and target in JSON lines, and the columns of other files.
NAMES = ('source', 'target')
COLUMNS = ('1', '2')


class Pair(NamedTuple):
  """An example of a text-to-text task.

  Attributes:
    source: The text to read.
    target: The text to write.
    group: The text that decides the split. Equal groups are in the same split.
  """

  source: str
  target: str
  group: str


def pairs(
  path: Path, target_path: Path | None, fields: tuple[str, ...], group: str
) -> Iterator[Pair]:
  """Yield the pairs of a file, or of two parallel files.

  Args:
    path: A tab-separated file, JSON lines, or the sources of parallel files.
    target_path: The targets, a line for each line of `path`. None for a single file.
    fields: The names of source and target: keys of JSON lines, or column numbers from '1'. Empty
      takes `source` and `target`, or the first two columns.
    group: 'source', or the name of another field.

  Yields:
    Pairs, some perhaps with empty texts.

  Raises:
    UserError: A line lacks a field, or the files have different numbers of lines.
  """
  is_json = target_path is None and readers.suffix(path) in JSON_LINES
  source, target = fields or (NAMES if is_json else COLUMNS)
  names = (source, target, source if group == 'source' else group)
  records = _parallel(path, target_path) if target_path else _records(path, is_json)
  for number, record in enumerate(records, 1):
    yield Pair(*(_field(record, name, f'{path} line {number}') for name in names))


def lines(path: Path) -> Iterator[str]:
  """Yield the lines of a UTF-8 file without their ends, LF or CRLF."""
  rest = ''
  for part in readers.text(path):
    *whole, rest = (rest + part).split('\n')
    yield from (line.removesuffix('\r') for line in whole)
  if rest:
    yield rest


def _records(path: Path, is_json: bool) -> Iterator[Mapping[str, Any]]:
  for number, line in enumerate(lines(path), 1):
    if is_json:
      yield _object(line, f'{path} line {number}')
    else:
      yield {str(i): text for i, text in enumerate(line.split('\t'), 1)}


def _parallel(path: Path, target_path: Path) -> Iterator[Mapping[str, str]]:
  for number, (source, target) in enumerate(
    itertools.zip_longest(lines(path), lines(target_path)), 1
  ):
    if source is None or target is None:
      short, long = (path, target_path) if source is None else (target_path, path)
      raise UserError(
        f'data.target_files: {short} has {number - 1} lines, and {long} has more. Expected a '
        'target line for each source line.'
      )
    yield {'1': source, '2': target}


def _object(line: str, where: str) -> dict[str, Any]:
  try:
    record = json.loads(line)
  except ValueError as error:
    raise UserError(f'data.files: {where} is not JSON ({error}). Expected an object.') from None
  if not isinstance(record, dict):
    raise UserError(f'data.files: {where} is {line:.60}. Expected a JSON object.')
  return record


def _field(record: Mapping[str, Any], name: str, where: str) -> str:
  if name not in record:
    raise UserError(f'data.fields: {where}: {unknown("field", name, record)}')
  if not isinstance(value := record[name], str):
    raise UserError(f'data.fields: {where}: {name} is {value!r:.60}. Expected text.')
  return value
