"""Published sizes of the zoo as test cases."""

import dataclasses
from typing import Any

import pytest

from tfm import zoo


def sizes() -> list[Any]:
  """Return the names of the zoo as test cases.

  If several models differ in sizes only, all but the first are in the large group.
  """
  known: set[object] = set()
  found = []
  for name in zoo.names():
    shape = _without_numbers(zoo.get(name))
    found.append(pytest.param(name, marks=pytest.mark.large) if shape in known else name)
    known.add(shape)
  return found


def _without_numbers(node: object) -> object:
  if isinstance(node, tuple):
    return tuple(_without_numbers(n) for n in node)
  if dataclasses.is_dataclass(node):
    return type(node), *(
      _without_numbers(getattr(node, field.name)) for field in dataclasses.fields(node)
    )
  return None if isinstance(node, int | float) and not isinstance(node, bool) else node
