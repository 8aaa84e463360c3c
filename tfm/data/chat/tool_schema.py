"""JSON schemas of Python functions that a model may call, for chat templates."""

from collections.abc import Callable, Mapping
import enum
import inspect
import json
import re
import types
import typing
from typing import Any

from tfm.core.errors import UserError

_SCALARS = {int: 'integer', float: 'number', str: 'string', bool: 'boolean', type(None): 'null'}
_TYPES = _SCALARS | {list: 'array', tuple: 'array', dict: 'object'}
_DESCRIPTION = re.compile(r'^(.*?)[\n\s]*(?:Args:|Returns:|Raises:|\Z)', re.DOTALL)
_ARGS = re.compile(r'\n\s*Args:\n(.*?)[\n\s]*(?:Returns:|Raises:|\Z)', re.DOTALL)
_RETURNS = re.compile(r'\n\s*Returns:\n\s*(.*?)[\n\s]*(?:Raises:|\Z)', re.DOTALL)
# One argument: its name and its description, up to the next name at the same indentation.
_ARG = re.compile(r'(?:^|\n)([ \t]*)(\w+):\s*(.*?)\s*(?=\n(?!\1[ \t])[ \t]*\w+:|\Z)', re.DOTALL)
_CHOICES = re.compile(r'\(choices:\s*(.*?)\)\s*$', re.IGNORECASE)


def schema_of(tool: Mapping[str, Any] | Callable[..., Any], where: str) -> dict[str, Any]:
  """Return the JSON schema of a tool.

  Args:
    tool: A JSON schema, or a function with type hints and a Google docstring.
    where: The position of the tool, for errors.

  Raises:
    UserError: The function lacks a docstring, a type hint or the description of an argument.
  """
  if isinstance(tool, Mapping):
    return dict(tool)
  if not (inspect.isfunction(tool) or inspect.ismethod(tool)):
    raise UserError(
      f'{where}: is {tool!r:.60}. Expected a JSON schema, or a function with type hints and a '
      'docstring.'
    )
  name = tool.__name__
  doc = (inspect.getdoc(tool) or '').strip()
  if not doc:
    raise UserError(
      f'{where}: the function {name} has no docstring. Expected a description of the function and '
      'its arguments.'
    )
  description = _DESCRIPTION.search(doc)
  returns = _RETURNS.search(doc)
  parameters, returned = _parameters(tool, where)
  _describe(parameters['properties'], _arguments(doc), f'{where}: {name}')
  function: dict[str, Any] = {
    'name': name,
    'description': description.group(1).strip() if description else None,
    'parameters': parameters,
  }
  if returned is not None:
    function['return'] = returned | ({'description': returns.group(1).strip()} if returns else {})
  return {'type': 'function', 'function': function}


def _parameters(
  tool: Callable[..., Any], where: str
) -> tuple[dict[str, Any], dict[str, Any] | None]:
  """Return the schemas of the parameters and of the return value, if it has a type hint."""
  hints = typing.get_type_hints(tool)
  signature = inspect.signature(tool).parameters
  names = list(signature)
  if names and names[0] in ('self', 'cls') and names[0] not in hints:
    del names[0]
  for name in names:
    if name not in hints:
      raise UserError(
        f'{where}: {tool.__name__}: the argument {name} has no type hint. Expected a type hint.'
      )
  properties = {name: _type(hints[name], f'{where}: {name}') for name in names}
  required = [name for name in names if signature[name].default is inspect.Parameter.empty]
  schema: dict[str, Any] = {'type': 'object', 'properties': properties}
  returned = None
  if 'return' in hints:
    try:
      returned = _type(hints['return'], where)
    except UserError:
      returned = None  # The model never generates return values.
  return schema | ({'required': required} if required else {}), returned


def _describe(properties: dict[str, Any], descriptions: Mapping[str, str], where: str) -> None:
  for name, schema in properties.items():
    if name not in descriptions:
      raise UserError(
        f'{where}: the docstring has no argument {name}. Expected its description under Args.'
      )
    text = descriptions[name]
    if choices := _CHOICES.search(text):
      values = json.loads(choices.group(1))
      stripped = lambda value: value.strip() if isinstance(value, str) else value
      schema['enum'] = [stripped(value) for value in values]
      text = text[: choices.start()].strip()
    schema['description'] = text


def _arguments(doc: str) -> dict[str, str]:
  found = _ARGS.search(doc)
  if found is None or found.group(1) is None:
    return {}
  block = '\n'.join(line for line in found.group(1).split('\n') if line.strip())
  return {name: re.sub(r'\s*\n+\s*', ' ', text.strip()) for _, name, text in _ARG.findall(block)}


def _type(hint: Any, where: str) -> dict[str, Any]:
  origin, args = typing.get_origin(hint), typing.get_args(hint)
  if origin is None:
    return _plain_type(hint, where)
  if origin in (typing.Union, types.UnionType):
    return _union(args, where)
  if origin is typing.Literal and all(type(value) in _SCALARS for value in args):
    return _enum(list(args))
  if origin is list:
    return {'type': 'array', 'items': _type(args[0], where)}
  if origin is tuple and len(args) > 1 and ... not in args:
    return {'type': 'array', 'prefixItems': [_type(a, where) for a in args]}
  if origin is dict:
    return {'type': 'object', 'additionalProperties': _type(args[1], where)}
  raise _unknown(hint, where)


def _plain_type(hint: Any, where: str) -> dict[str, Any]:
  if isinstance(hint, type) and issubclass(hint, enum.Enum):
    values = [member.value for member in hint]
    if values and all(type(value) in _SCALARS for value in values):
      return _enum(values)
  if hint is Any:
    return {}
  if hint in _TYPES:
    return {'type': _TYPES[hint]}
  raise _unknown(hint, where)


def _union(args: tuple[Any, ...], where: str) -> dict[str, Any]:
  found = [_type(a, where) for a in args if a is not type(None)]
  if len(found) == 1:
    schema = found[0]
  elif all(s.keys() == {'type'} and isinstance(s['type'], str) for s in found):
    names = sorted({s['type'] for s in found})
    schema = {'type': names[0] if len(names) == 1 else names}
  else:
    schema = {'anyOf': found}
  return schema | ({'nullable': True} if type(None) in args else {})


def _enum(values: list[Any]) -> dict[str, Any]:
  kinds = list(dict.fromkeys(_SCALARS[type(value)] for value in values))
  return {'type': kinds[0] if len(kinds) == 1 else kinds, 'enum': values}


def _unknown(hint: Any, where: str) -> UserError:
  return UserError(
    f'{where}: the type hint {hint!r} has no JSON schema. Expected int, float, str, bool, Enum, '
    'Literal, or lists, tuples, dicts and unions of these. Otherwise pass a JSON schema of the '
    'tool.'
  )
