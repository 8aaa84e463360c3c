"""Names of parametrised cases, as `key=value` pairs."""

import dataclasses
import os
import pathlib
from typing import Any


def case_id(name: str, value: Any) -> str:
  """Return `name=value`, the part of a case's id for one argument.

  A value with a long text, or one that differs from run to run, appears as the name of its type;
  pytest adds numbers."""
  return f'{name}={_text(value)}'


def _text(value: Any) -> str:
  if isinstance(value, str):
    return value.encode('unicode_escape').decode('ascii')
  if isinstance(value, os.PathLike):
    return pathlib.Path(value).stem
  if isinstance(value, type):
    return value.__name__
  if callable(value) and getattr(value, '__name__', '<lambda>') != '<lambda>':
    return value.__name__
  text = _plain(value)
  return text if text and len(text) <= 60 else type(value).__name__


def _plain(value: Any) -> str | None:
  """Return the text of a number, a collection, or a dataclass without its default fields; None for
  anything else.
  """
  if dataclasses.is_dataclass(value):
    given = [
      f for f in dataclasses.fields(value) if repr(getattr(value, f.name)) != repr(f.default)
    ]
    fields = [f'{f.name}={_text(getattr(value, f.name))}' for f in given]
    return f'{type(value).__name__}({",".join(fields)})'
  if isinstance(value, dict):
    return '{' + ','.join(f'{k}:{_text(v)}' for k, v in value.items()) + '}'
  if isinstance(value, tuple | list):
    return '(' + ','.join(map(_text, value)) + ')'
  return repr(value) if value is None or isinstance(value, bool | int | float) else None
