"""Lossless conversion between configs and JSON values."""

from collections.abc import Mapping
import dataclasses
import math
from typing import Any

from tfm.core import errors, nodes
from tfm.core.text import wrong

_PART, _KIND, _CLASS, _FLOAT = 'part', 'kind', 'class', 'float'


def to_json(cfg: Any) -> Any:
  """Return a config as dicts, lists and scalars, with all fields including defaults.

  A part is stored with its table entry: `{"part": "rope", "base": 10000.0}`. Its kind or class is
  added where the declared type is ambiguous. Infinite and NaN floats are `{"float": "inf"}`.

  Raises:
    ConfigError: A value does not have its declared type.
  """
  return _write(cfg, type(cfg), '')


def from_json(cls: type, stored: Any) -> Any:
  """Return the config of class `cls` that `to_json` stored; missing fields get their defaults.

  Fields of earlier versions are accepted: a class lists renamed fields in `former` (old name: new
  name), and rewrites other changes in a static method `upgrade`.

  Raises:
    ConfigError: A part or field is unknown, a type is wrong, or a required field is missing.
  """
  return _read(stored, cls, '')


def _write(value: Any, want: Any, path: str) -> Any:
  if not nodes.fits(value, want):
    raise wrong(path or 'config', want, value)
  if isinstance(value, tuple):
    return [_write(c.value, c.want, c.path) for c in nodes.children(value, want, path)]
  if isinstance(value, Mapping):
    if not all(isinstance(key, str) for key in value):
      raise errors.ConfigError(f'{path}: has the keys {list(value)!r}. Expected strings.')
    return {c.name: _write(c.value, c.want, c.path) for c in nodes.children(value, want, path)}
  if isinstance(value, float) and not math.isfinite(value):
    return {_FLOAT: repr(value)}
  if not nodes.is_node(value):
    if value is None or isinstance(value, (bool, int, float, str)):
      return value
    raise errors.ConfigError(
      f'{path}: is {value!r}, a {type(value).__name__}. Expected a value that JSON can store.'
    )
  fields = {c.name: _write(c.value, c.want, c.path) for c in nodes.children(value, want, path)}
  tags = _tags(value, want)
  assert not set(tags) & set(fields), (
    f'{path}: {type(value).__name__} has a field named {sorted(tags)}'
  )
  return tags | fields


def _tags(node: Any, want: Any) -> dict[str, str]:
  """Return the entries that identify the class of a node where its declared type is ambiguous."""
  classes = [o for o in nodes.options(want) if dataclasses.is_dataclass(o)]
  if nodes.is_part(type(node)):
    kinds = {o.table().kind for o in classes if nodes.is_part(o)}
    tag = {_PART: node.table().name_of(node)}
    return tag | ({_KIND: node.table().kind} if len(kinds) > 1 else {})
  return {} if len(classes) == 1 else {_CLASS: type(node).__name__}


def _read(stored: Any, want: Any, path: str) -> Any:
  if isinstance(stored, dict):
    return _read_dict(stored, want, path)
  if isinstance(stored, list):
    value: Any = tuple(
      _read(v, nodes.element(want, i), nodes.join(path, i)) for i, v in enumerate(stored)
    )
  elif type(stored) is int and float in nodes.options(want) and int not in nodes.options(want):
    value = float(stored)  # other tools may write 1.0 as 1
  else:
    value = stored
  if not nodes.fits(value, want):
    raise wrong(path or 'config', want, stored)
  return value


def _read_dict(stored: dict[str, Any], want: Any, path: str) -> Any:
  if set(stored) == {_FLOAT} and float in nodes.options(want):
    return float(stored[_FLOAT])
  classes = [o for o in nodes.options(want) if dataclasses.is_dataclass(o) and isinstance(o, type)]
  if not classes:
    value = {key: _read(v, nodes.entry(want), nodes.join(path, key)) for key, v in stored.items()}
    if not nodes.fits(value, want):
      raise wrong(path or 'config', want, stored)
    return value
  cls, here = _class_of(stored, classes, path), path or 'config'
  if (upgrade := getattr(cls, 'upgrade', None)) is not None:
    stored = upgrade(stored)
  former = getattr(cls, 'former', {})
  stored = {former.get(name, name): value for name, value in stored.items()}
  hints, tags = nodes.hints(cls), (_PART, _KIND, _CLASS)
  values = {k: v for k, v in stored.items() if k not in tags or k in hints}
  for name in values:
    if name not in hints:
      raise errors.ConfigError(
        f'{here}: {errors.unknown(f"stored field of {cls.__name__}", name, hints)}'
      )
  if missing := [n for n in nodes.required(cls) if n not in values]:
    raise errors.ConfigError(
      f'{here}: the fields {", ".join(missing)} of {cls.__name__} are missing. Expected values.'
    )
  made = {name: _read(v, hints[name], nodes.join(path, name)) for name, v in values.items()}
  try:
    return cls(**made)
  except ValueError as e:
    raise errors.ConfigError(f'{here}: {e}') from None


def _class_of(stored: dict[str, Any], classes: list[type], path: str) -> type:
  here = path or 'config'
  if _PART in stored:
    kinds = {c.table().kind: c for c in classes if nodes.is_part(c)}
    kind = stored.get(_KIND, next(iter(kinds), None))
    if kind not in kinds:
      raise errors.ConfigError(f'{here}: {errors.unknown("stored kind of part", kind, kinds)}')
    try:
      table, name = kinds[kind].table(), stored[_PART]
      cls = table[table.former.get(name, name)]
    except errors.ConfigError as e:
      raise errors.ConfigError(f'{here}: {e}') from None
    if not (isinstance(cls, type) and issubclass(cls, tuple(classes))):
      raise errors.ConfigError(
        f'{here}: is {stored[_PART]!r}. Expected {nodes.describe(kinds[kind])}.'
      )
    return cls
  plain = {c.__name__: c for c in classes if not nodes.is_part(c)}
  if _CLASS in stored:
    if stored[_CLASS] not in plain:
      raise errors.ConfigError(f'{here}: {errors.unknown("stored class", stored[_CLASS], plain)}')
    return plain[stored[_CLASS]]
  if len(plain) != 1:
    raise errors.ConfigError(
      f'{here}: has no class. Expected {" or ".join(c.__name__ for c in classes)}.'
    )
  return next(iter(plain.values()))
