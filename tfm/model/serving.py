"""Models whose positions are stretched for rows of one length, for rows of another."""

from collections.abc import Mapping
import dataclasses
from typing import Any

from tfm.core import errors
from tfm.model.spec import Model
from tfm.parts.relative.scaling.base import Scaling


def serving(spec: Model, length: int) -> Model:
  """`spec` for rows of up to `length` tokens, prompt and answer together: other angles, the same
  parameters.

  What chooses by that length is a field of the model (`LongRoPE.served`, `Dynamic.length`), so that
  a row is the same alone, in a batch and token by token.

  Raises: UserError if no position of the model depends on it.
  """
  found = _serving(spec, length)
  if found == spec and _serving(spec, length + 1) == spec:
    raise errors.UserError(
      f'length={length}: no position of the model depends on how long rows are. Expected a model '
      f'with scaling=longrope '
      'or dynamic, or no length.'
    )
  return found


def _serving(node: Any, length: int) -> Any:
  if isinstance(node, Scaling):
    return node.serving(length)
  if isinstance(node, tuple):
    return tuple(_serving(n, length) for n in node)
  if isinstance(node, Mapping):
    return {name: _serving(n, length) for name, n in node.items()}
  if not dataclasses.is_dataclass(node) or isinstance(node, type):
    return node
  return dataclasses.replace(
    node,
    **{f.name: _serving(getattr(node, f.name), length) for f in dataclasses.fields(node) if f.init},
  )
