"""Models with length-dependent position scaling, set up for sequences of another length."""

from collections.abc import Mapping
import dataclasses
from typing import Any

from tfm.core import errors
from tfm.model.spec import Model
from tfm.parts.relative.scaling.base import Scaling


def serving(spec: Model, length: int) -> Model:
  """Return the model for sequences of up to `length` tokens, prompt and answer together.

  The rotary angles differ, the parameters stay the same. The length is a field of the model
  (`LongRoPE.served`, `Dynamic.length`), so that results do not depend on the batch or the chunking.

  Raises:
    UserError: if no part of the model depends on the length.
  """
  new: Model = _serving(spec, length)
  if new == spec and _serving(spec, length + 1) == spec:
    raise errors.UserError(
      f'length={length}: no position of the model depends on the length. '
      'Expected a model with scaling=longrope or dynamic, or no length.'
    )
  return new


def _serving(node: Any, length: int) -> Any:
  if isinstance(node, Scaling):
    return node.serving(length)
  if isinstance(node, tuple):
    return tuple(_serving(n, length) for n in node)
  if isinstance(node, Mapping):
    return {name: _serving(n, length) for name, n in node.items()}
  if not dataclasses.is_dataclass(node) or isinstance(node, type):
    return node
  fields = [f.name for f in dataclasses.fields(node) if f.init]
  new = {name: _serving(getattr(node, name), length) for name in fields}
  return dataclasses.replace(node, **new)
