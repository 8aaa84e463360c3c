"""Conversion between text and values of declared types."""

import ast
import collections.abc
from collections.abc import Iterator, Mapping
import contextlib
import dataclasses
import decimal
import functools
import operator
import re
import typing
from typing import Any, Literal

from tfm.core import errors, nodes

# Strings are tried last: every text is a string, also the numbers of `str | int`.
_RANK = {bool: 0, int: 1, float: 2, str: 9}


def parse(want: Any, text: str, path: str = '') -> Any:
  """Return the value of a text, by its declared type.

  Numbers are written as in Python, and `1e6` is also an int. Other values are `true`, `false`,
  `none`, tuples `1,2` or `(1, 2)`, and mappings `{a: 1}`. A part is named by its entry in the table
  of its kind, another dataclass by its class: `rope` with default fields, `rope(base=5e5)` with
  given ones. `causal&window(size=64)` combines parts that can be combined. Strings inside a tuple,
  a union or a part may be quoted.

  Args:
    want: The declared type.
    text: The text.
    path: The path of the value, for errors.

  Returns:
    The value.

  Raises:
    ConfigError: The text is no value of this type.
  """
  origin = typing.get_origin(want)
  if len(nodes.options(want)) > 1:
    return _union(want, text, path)
  if origin is Literal:
    return _literal(want, text, path)
  if origin is tuple:
    return _tuple(want, text, path)
  if origin in (dict, collections.abc.Mapping):
    return _mapping(want, text, path)
  if nodes.is_part(want) or hasattr(want, 'from_text'):
    return _by_name(want, text, path)
  if dataclasses.is_dataclass(want):
    return _plain(typing.cast(type, want), text, path)
  if (read := _SCALARS.get(want)) is None:
    raise errors.ConfigError(
      f'{path}: cannot be set by a flag, since its type is {nodes.describe(want)}.'
    )
  try:
    return read(text)
  except ValueError:
    raise wrong(path, want, text) from None


def wrong(path: str, want: Any, got: Any) -> errors.ConfigError:
  """Return the error for a value of another type."""
  return errors.ConfigError(f'{path}: is {got!r}. Expected {nodes.describe(want)}.')


def text_of(value: Any, *, inner: bool = False) -> str:
  """Return a value as one line that `parse` reads; dataclasses omit fields at their defaults.

  Args:
    value: The value.
    inner: Whether the text is part of a tuple, union or part, where ambiguous strings are quoted.
  """
  if value is None:
    return 'none'
  if isinstance(value, bool):
    return str(value).lower()
  if isinstance(value, str):
    return value if not inner or _reads_as_itself(value) else repr(value)
  if isinstance(value, tuple):
    items = [text_of(v, inner=True) for v in value]
    return f'({", ".join(items)}{"," if len(items) == 1 else ""})'
  if isinstance(value, Mapping):
    return (
      '{'
      + ', '.join(f'{text_of(k, inner=True)}: {text_of(v, inner=True)}' for k, v in value.items())
      + '}'
    )
  if nodes.is_node(value):
    changed = [
      c for c in nodes.children(value, None, '') if c.value != nodes.default(type(value), c.name)
    ]
    fields = ', '.join(f'{c.name}={text_of(c.value, inner=True)}' for c in changed)
    return name_of(value) + (f'({fields})' if fields else '')
  return repr(value)


def name_of(node: Any) -> str:
  """Return the table entry of a part, or the class name of another node."""
  if nodes.is_part(type(node)):
    with contextlib.suppress(errors.ConfigError):
      return node.table().name_of(node)
  return type(node).__name__


def _int(text: str) -> int:
  try:
    number = decimal.Decimal(text)
  except decimal.InvalidOperation:
    raise ValueError(text) from None
  plain = '.' not in text or 'e' in text.lower()
  # Decimal is exact for 1e23; the bound rejects 1e999999999, which would fill the memory.
  if not (
    number.is_finite()
    and plain
    and number.adjusted() < 4300
    and number == number.to_integral_value()
  ):
    raise ValueError(text)
  return int(number)


def _bool(text: str) -> bool:
  if text.lower() not in ('true', 'false'):
    raise ValueError(text)
  return text.lower() == 'true'


def _none(text: str) -> None:
  if text.lower() != 'none':
    raise ValueError(text)


def _any(text: str) -> Any:
  for read in (_none, _bool, int, float):
    with contextlib.suppress(ValueError):
      return read(text)
  if text[:1] in ('(', '['):
    return tuple(_any(t) for t in _items(text))
  return _unquoted(text)


_SCALARS: dict[Any, Any] = {
  int: _int,
  float: float,
  bool: _bool,
  str: str,
  type(None): _none,
  Any: _any,
  tuple: lambda text: tuple(_any(t) for t in _items(text)),
}


def _quoted(text: str) -> bool:
  if len(text) < 2 or text[0] not in '\'"' or text[-1] != text[0]:
    return False
  try:
    return isinstance(ast.literal_eval(text), str)
  except (ValueError, SyntaxError):
    return False


def _unquoted(text: str) -> str:
  return ast.literal_eval(text) if _quoted(text) else text


def _reads_as_itself(value: str) -> bool:
  return bool(re.fullmatch(r'[\w./*-]+', value)) and _any(value) == value


def _union(want: Any, text: str, path: str) -> Any:
  choices = nodes.options(want)
  if type(None) in choices and text.lower() == 'none':
    return None
  if str in choices and _quoted(text):
    return _unquoted(text)
  if {int, float} <= set(choices) and 'e' in text.lower():
    choices = tuple(
      c for c in choices if c is not int
    )  # 1e6 is an int only where a float is not allowed
  choices = tuple(
    sorted((c for c in choices if c is not type(None)), key=lambda c: _RANK.get(c, 5))
  )
  reasons = []
  for choice in choices:
    try:
      return parse(choice, text, path)
    except errors.ConfigError as e:
      reasons.append((choice, e))
  if len(choices) == 1 and choices[0] not in _SCALARS:
    raise reasons[0][1]
  near = [str(e).removeprefix(f'{path}: ') for choice, e in reasons if nodes.is_part(choice)]
  raise errors.ConfigError(
    ' '.join([str(wrong(path, want, text)), *(f'As a part: {n}' for n in near)])
  )


def _literal(want: Any, text: str, path: str) -> Any:
  for value in typing.get_args(want):
    if text == text_of(value) or (value is None and text == 'None'):
      return value
  names = [text_of(v) for v in typing.get_args(want)]
  raise errors.ConfigError(f'{path}: {errors.unknown("value", text, names)}')


def _items(text: str) -> list[str]:
  text = text.strip()
  marks = list(_outside_quotes(text))
  ends = next((i for i, _, depth in marks if depth == 0), -1)
  if text[:1] in tuple('([{') and ends == len(text) - 1:  # brackets around the whole text
    text = text[1:-1]
  return _pieces(text)


def _pieces(text: str) -> list[str]:
  """Return the texts between commas; a trailing comma adds none."""
  pieces = [piece.strip() for piece in _split(text, ',')]
  return pieces[:-1] if pieces[-1] == '' else pieces


def _split(text: str, separators: str) -> Iterator[str]:
  """Yield the pieces of a text between separators outside brackets and quotes."""
  start = 0
  for i, c, depth in _outside_quotes(text):
    if c in separators and depth == 0:
      yield text[start:i]
      start = i + 1
  yield text[start:]


def _outside_quotes(text: str) -> Iterator[tuple[int, str, int]]:
  """Yield `(index, character, bracket depth after it)` for characters outside quotes."""
  depth, quote, fresh, skip = 0, '', True, False
  for i, c in enumerate(text):
    if quote:
      quote, skip = ('' if c == quote and not skip else quote), c == '\\' and not skip
    elif c in '\'"' and fresh:  # only at the start of an item: in it's, the apostrophe is a letter
      quote = c
    else:
      depth += (c in '([{') - (c in ')]}')
      fresh = c in '([{,:=' or (fresh and c.isspace())
      yield i, c, depth


def _tuple(want: Any, text: str, path: str) -> tuple[Any, ...]:
  args, items = typing.get_args(want), _items(text)
  if not (len(args) == 2 and args[1] is Ellipsis) and len(items) != len(args):
    raise wrong(path, want, text)
  return tuple(
    _item(nodes.element(want, i), item, nodes.join(path, i)) for i, item in enumerate(items)
  )


def _mapping(want: Any, text: str, path: str) -> dict[Any, Any]:
  key_type, value_type = typing.get_args(want)
  out = {}
  for item in _items(text):
    key, *rest = _split(item, ':=')
    if not rest:
      raise wrong(path, want, text)
    value = item[len(key) + 1 :].strip()
    out[_item(key_type, key.strip(), path)] = _item(
      value_type, value, nodes.join(path, key.strip())
    )
  return out


def _item(want: Any, text: str, path: str) -> Any:
  literal = want is str or typing.get_origin(want) is Literal
  return parse(want, _unquoted(text) if literal else text, path)


def _by_name(want: Any, text: str, path: str) -> Any:
  if (
    nodes.is_part(want) and hasattr(want, '__and__') and len(joined := list(_split(text, '&'))) > 1
  ):
    return functools.reduce(
      operator.and_, (_by_name(want, piece.strip(), path) for piece in joined)
    )
  name, inside = _call(text)
  known = want.table() if nodes.is_part(want) else ()
  if name in known:
    value = _built(want.table()[name], name, inside, path)
  elif nodes.is_part(want) and name != text:
    raise errors.ConfigError(f'{path}: {want.table().unknown(name)}')
  else:
    try:
      value = want.from_text(text)
    except errors.UserError as e:
      raise errors.ConfigError(f'{path}: {e}') from None
    except ValueError:
      raise wrong(path, want, text) from None
  if not isinstance(value, want):
    raise wrong(path, want, text)
  return value


def _plain(want: type, text: str, path: str) -> Any:
  name, inside = _call(text)
  if name == want.__name__:
    return _built(want, name, inside, path)
  raise errors.ConfigError(
    f'{path}: is {text!r}. Expected {want.__name__} for default fields, or '
    f'{want.__name__}(field=value). Known: {", ".join(nodes.hints(want))}.'
  )


def _call(text: str) -> tuple[str, str]:
  """Return `('rope', 'base=5e5')` for `rope(base=5e5)`, `('rope', '')` for `rope`."""
  match = re.fullmatch(r'([\w.-]+)\((.*)\)', text.strip(), re.DOTALL)
  return (match[1], match[2]) if match else (text, '')


def _built(cls: type, name: str, inside: str, path: str) -> Any:
  hints, fields = nodes.hints(cls), {}
  for item in _pieces(inside):
    field, *rest = _split(item, '=')
    if not rest:
      raise errors.ConfigError(f'{path}: is {item!r}. Expected {name}(field=value).')
    if (field := field.strip()) not in hints:
      raise errors.ConfigError(f'{path}={name}: {errors.unknown("field", field, hints)}')
    if field in fields:
      raise errors.ConfigError(f'{path}={name}: {field} is given twice. Expected it once.')
    fields[field] = _item(hints[field], item.partition('=')[2].strip(), nodes.join(path, field))
  if missing := [n for n in nodes.required(cls) if n not in fields]:
    needed = ', '.join(f'{n}=...' for n in missing)
    raise errors.ConfigError(
      f'{path}: {name!r} has no default {", ".join(missing)}. Expected {name}({needed}).'
    )
  try:
    return cls(**fields)
  except ValueError as e:  # raised by __post_init__
    raise errors.ConfigError(f'{path}: {e}') from None
