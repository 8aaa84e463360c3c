"""Sanitised inputs of chat templates: JSON values without methods."""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np


def sanitised(value: Any) -> Any:
  """Return a copy of a value in JSON types.

  Any other object becomes the name of its type in angle brackets. Templates come with the weights
  and are untrusted. An object with methods could let them escape the sandbox.
  """
  if value is None or type(value) in (str, int, float, bool):
    return value
  # Convert subclasses to the base type, because they may have further methods.
  if isinstance(value, str):
    return str.__str__(value)
  if isinstance(value, (int, float)):
    return int.__int__(value) if isinstance(value, int) else float.__float__(value)
  if isinstance(value, Mapping):
    return {sanitised(key): sanitised(item) for key, item in value.items()}
  if isinstance(value, (list, tuple)):
    kind = type(value) if type(value) in (list, tuple) else list
    return kind(map(sanitised, value))
  if isinstance(value, np.generic):
    return sanitised(value.item())
  if dataclasses.is_dataclass(value) and not isinstance(value, type):
    return {
      field.name: sanitised(getattr(value, field.name)) for field in dataclasses.fields(value)
    }
  if callable(dump := getattr(value, 'model_dump', None)):
    return sanitised(dump())
  return f'<{type(value).__name__}>'


def with_reasoning(message: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
  """Return a message with its reasoning under each field name that templates use.

  Args:
    message: The fields of the message.
    names: The possible field names of the reasoning, in order of preference.
  """
  found = next((message[name] for name in names if message.get(name) is not None), None)
  return message if found is None else {'thinking': found, **message, 'reasoning_content': found}
