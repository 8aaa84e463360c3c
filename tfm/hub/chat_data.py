"""What a chat template may see: plain JSON values, and nothing that it could call."""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
  """Return a value as JSON types, copied; what is none becomes the name of its type in brackets.

  Templates come with the weights, from anywhere. Objects with methods could do harm in them.
  """
  if value is None or type(value) in (str, int, float, bool):
    return value
  # Of a subclass only its value: the class may have methods of its own.
  if isinstance(value, str):
    return str.__str__(value)
  if isinstance(value, (int, float)):
    return int.__int__(value) if isinstance(value, int) else float.__float__(value)
  if isinstance(value, Mapping):
    return {plain(key): plain(item) for key, item in value.items()}
  if isinstance(value, (list, tuple)):
    return type(value)(map(plain, value)) if type(value) in (list, tuple) else list(map(plain, value))
  if isinstance(value, np.generic):
    return plain(value.item())
  if dataclasses.is_dataclass(value) and not isinstance(value, type):
    return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
  if callable(dump := getattr(value, 'model_dump', None)):
    return plain(dump())
  return f'<{type(value).__name__}>'


def with_reasoning(message: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
  """Return a message whose reasoning has all the names that templates read it by."""
  found = next((message[name] for name in names if message.get(name) is not None), None)
  return message if found is None else {'thinking': found, **message, 'reasoning_content': found}
