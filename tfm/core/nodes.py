"""Config trees of frozen dataclasses, tuples and mappings, with declared types."""

import collections.abc
from collections.abc import Iterator, Mapping
import dataclasses
import functools
import types
import typing
from typing import Any, Literal, NamedTuple, Union

from tfm.core.registry import Part

#: The default of a field that has none.
MISSING = dataclasses.MISSING


class Child(NamedTuple):
  """A value inside a node.

  Attributes:
    name: The field, index or key.
    value: The value.
    want: Its declared type.
    path: Its path from the root.
  """

  name: str
  value: Any
  want: Any
  path: str


def is_node(value: object) -> bool:
  """Return whether a value is an instance of a dataclass."""
  return dataclasses.is_dataclass(value) and not isinstance(value, type)


def is_part(want: object) -> typing.TypeGuard[type[Part]]:
  """Return whether a declared type is a part or a kind of part."""
  return isinstance(want, type) and issubclass(want, Part) and want is not Part


def join(path: str, name: object) -> str:
  """Return `path.name`, or `name` at the root."""
  return f'{path}.{name}' if path else str(name)


def hints(cls: type) -> Mapping[str, Any]:
  """Return the declared type of every field that `cls(...)` accepts, by name and in order."""
  return _hints(cls)


@functools.cache
def _hints(cls: type) -> Mapping[str, Any]:
  known = typing.get_type_hints(cls)
  return types.MappingProxyType({f.name: known[f.name] for f in dataclasses.fields(cls) if f.init})


def default(cls: type, name: str) -> Any:
  """Return the default of a field, or `MISSING`."""
  field = next(f for f in dataclasses.fields(cls) if f.name == name)
  return field.default if field.default_factory is MISSING else field.default_factory()


def required(cls: type) -> list[str]:
  """Return the fields of a class that have no default."""
  return [name for name in hints(cls) if default(cls, name) is MISSING]


def options(want: Any) -> tuple[Any, ...]:
  """Return the members of a union, or the type alone."""
  return typing.get_args(want) if typing.get_origin(want) in (Union, types.UnionType) else (want,)


def element(want: Any, index: int) -> Any:
  """Return the declared type of element `index` of a tuple type; `Any` if undeclared."""
  for option in options(want):
    if typing.get_origin(option) is tuple:
      args = typing.get_args(option)
      if len(args) == 2 and args[1] is Ellipsis:
        return args[0]
      return args[index] if index < len(args) else Any
  return Any


def entry(want: Any) -> Any:
  """Return the declared type of the values of a mapping type; `Any` if undeclared."""
  for option in options(want):
    if typing.get_origin(option) in (dict, collections.abc.Mapping):
      return typing.get_args(option)[1]
  return Any


def children(node: Any, want: Any, path: str) -> Iterator[Child]:
  """Yield the direct children of a node, or nothing for a leaf.

  Args:
    node: A dataclass, tuple or mapping, or a leaf.
    want: Its declared type.
    path: Its path.
  """
  if isinstance(node, tuple):
    for i, value in enumerate(node):
      yield Child(str(i), value, element(want, i), join(path, i))
  elif isinstance(node, Mapping):
    for key, value in node.items():
      yield Child(str(key), value, entry(want), join(path, key))
  elif is_node(node):
    for name, hint in hints(type(node)).items():
      yield Child(name, getattr(node, name), hint, join(path, name))


def walk(node: Any, want: Any = Any, path: str = '') -> Iterator[Child]:
  """Yield all descendants of a node, parents before children.

  Args:
    node: A config or a part of one.
    want: Its declared type.
    path: Its path.
  """
  for child in children(node, want, path):
    yield child
    yield from walk(child.value, child.want, child.path)


def rebuild(node: Any, changed: Mapping[str, Any]) -> Any:
  """Return a node with some children replaced, by name; without changes the node itself."""
  if not changed:
    return node
  if isinstance(node, tuple):
    return tuple(changed.get(str(i), value) for i, value in enumerate(node))
  if isinstance(node, Mapping):
    keys = {str(key): key for key in node}
    return dict(node) | {keys.get(name, name): value for name, value in changed.items()}
  return dataclasses.replace(node, **changed)


def describe(want: Any) -> str:
  """Return a declared type in words: `int`, `float or none`, `'a' or 'b'`, `a norm`."""
  origin, args = typing.get_origin(want), typing.get_args(want)
  if len(options(want)) > 1:
    return ' or '.join(describe(o) for o in args)
  if want is type(None) or want is None:
    return 'none'
  if origin is Literal:
    return ' or '.join(map(repr, args))
  if origin is tuple:
    repeated = len(args) == 2 and args[1] is Ellipsis
    return (
      f'a tuple of {describe(args[0])}'
      if repeated
      else f'a tuple ({", ".join(map(describe, args))})'
    )
  if origin in (dict, collections.abc.Mapping):
    return f'a mapping of {describe(args[0])} to {describe(args[1])}'
  if is_part(want):
    return f'a {want.table().kind}' if Part in want.__bases__ else f'a {want.__name__}'
  if dataclasses.is_dataclass(want):
    return f'a {getattr(want, "__name__", want)}'
  return str(want) if origin else getattr(want, '__name__', str(want))


def fits(value: Any, want: Any) -> bool:
  """Return whether a value has a declared type. An int is also a float; a bool is not a number."""
  origin, args = typing.get_origin(want), typing.get_args(want)
  if len(options(want)) > 1:
    return any(fits(value, o) for o in args)
  if want is Any:
    return True
  if want is None or want is type(None):
    return value is None
  if origin is Literal:
    return any(value == a and type(value) is type(a) for a in args)
  if origin is tuple:
    repeated = len(args) == 2 and args[1] is Ellipsis
    return (
      isinstance(value, tuple)
      and (repeated or len(value) == len(args))
      and all(fits(v, element(want, i)) for i, v in enumerate(value))
    )
  if origin in (dict, collections.abc.Mapping):
    return isinstance(value, Mapping) and all(
      fits(k, args[0]) and fits(v, args[1]) for k, v in value.items()
    )
  if want in (int, float):
    return isinstance(value, (int, want)) and not isinstance(value, bool)
  return isinstance(value, origin or want)
