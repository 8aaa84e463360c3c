"""Compare the identities of token stores, to say why a text is tokenised again."""

from collections.abc import Iterator
import itertools
import json
from pathlib import Path
from typing import Any

FILE = 'identity.json'
#: Changes that a sentence lists.
_LISTED = 4


def changes(cache: Path, identity: dict[str, Any]) -> str:
  """Return what changed since the latest store of the same source, or '' without such a store.

  Args:
    cache: The folder of all stores.
    identity: JSON that identifies the new store.
  """
  wanted = json.loads(json.dumps(identity))
  for path in sorted(cache.glob(f'*/{FILE}'), key=lambda p: p.stat().st_mtime, reverse=True):
    try:
      known = json.loads(path.read_text('utf-8'))
    except (OSError, ValueError):
      continue
    if _same_source(known.get('source'), wanted.get('source')):
      found = list(itertools.islice(_differences('', known, wanted), _LISTED + 1))
      more = ', ...' if len(found) > _LISTED else ''
      return ', '.join(found[:_LISTED]) + more
  return ''


def _same_source(a: Any, b: Any) -> bool:
  """Return whether two sources share a file, or a name without files."""
  if not isinstance(a, dict) or not isinstance(b, dict) or a.get('data') != b.get('data'):
    return False
  files_a, files_b = set(_files(a)), set(_files(b))
  if files_a or files_b:
    return bool(files_a & files_b)
  name = lambda source: str(source.get('name', '')).partition(':')[0]
  return name(a) == name(b)


def _files(value: Any) -> Iterator[str]:
  """Yield the paths of all file stamps in JSON."""
  if _is_stamp(value):
    yield value[0]
  elif isinstance(value, list | dict):
    for item in value.values() if isinstance(value, dict) else value:
      yield from _files(item)


def _is_stamp(value: Any) -> bool:
  """Return whether JSON is a list that begins with the path, size and time of a file."""
  if not isinstance(value, list) or len(value) < 3:
    return False
  return isinstance(value[0], str) and value[0].startswith('/') and isinstance(value[2], int)


def _differences(name: str, a: Any, b: Any) -> Iterator[str]:
  """Yield the differences of two JSON values at the path `name`."""
  if a == b:
    return
  if isinstance(a, dict) and isinstance(b, dict):
    for key in dict.fromkeys([*a, *b]):
      path = f'{name}.{key}' if name else key
      yield from _differences(path, a.get(key), b.get(key))
  elif _is_list_of_stamps(a) and _is_list_of_stamps(b):
    old = {row[0]: row[1:] for row in a}
    new = {row[0]: row[1:] for row in b}
    for path in dict.fromkeys([*old, *new]):
      if path not in new:
        yield f'{path} is gone'
      elif path not in old:
        yield f'{path} is new'
      elif old[path] != new[path]:
        yield f'{path} changed'
  else:
    yield f'{name}: {_short(a)} -> {_short(b)}'


def _is_list_of_stamps(value: Any) -> bool:
  return isinstance(value, list) and all(map(_is_stamp, value))


def _short(value: Any) -> str:
  text = json.dumps(value)
  return text if len(text) <= 40 else f'{text[:37]}...'
