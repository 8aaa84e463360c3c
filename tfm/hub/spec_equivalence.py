"""Normal forms of specs, which are equal for models that compute the same function."""

import dataclasses
from typing import Any

from tfm.core.frozen import FrozenMap
from tfm.model.spec import Model, Segment, Tower
from tfm.parts.heads import Heads
from tfm.parts.init.base import Init

#: Fields that do not affect the outputs for given parameters -> their value in the normal form.
_NORMAL = {
  'dropout': 0.0,
  'drop_path': 0.0,
  'balance': 0.0,
  'z': 0.0,
  'rate': None,
  'served': None,
  'start': 'noise',
}


def normalised(spec: Model) -> Model:
  """Return a spec without the fields that do not affect inference for given parameters."""
  return dataclasses.replace(_normalised(spec, spec.d_model), init=Init())


def flattened(spec: Model) -> Model:
  """Return a spec with repeated layers expanded and adjacent segments joined."""
  towers = {name: _flattened(tower) for name, tower in spec.towers.items()}
  return dataclasses.replace(_flattened(spec), towers=towers)


def _flattened(stack: Any) -> Any:
  joined: list[Segment] = []
  for s in stack.segments:
    if s.shared:
      joined.append(s)
      continue
    joins = joined and not joined[-1].shared and s.resample is None and joined[-1].unit == s.unit
    before = joined.pop() if joins else dataclasses.replace(s, pattern=(), repeats=1)
    pattern = before.pattern + s.pattern * s.repeats
    joined.append(dataclasses.replace(before, pattern=pattern, repeats=1))
  return dataclasses.replace(stack, segments=tuple(joined))


def _normalised(node: Any, d_model: int) -> Any:
  if isinstance(node, tuple):
    return tuple(_normalised(n, d_model) for n in node)
  if isinstance(node, FrozenMap):
    return FrozenMap({name: _normalised(value, d_model) for name, value in node.items()})
  if not dataclasses.is_dataclass(node) or isinstance(node, type):
    return node
  if isinstance(node, Tower):
    d_model = node.d_model or d_model
  names = [f.name for f in dataclasses.fields(node) if f.init]
  fields = {name: _normalised(getattr(node, name), d_model) for name in names}
  fields |= {name: value for name, value in _NORMAL.items() if name in fields}
  if isinstance(node, Heads):
    _, fields['kv_heads'], fields['head_dim'] = node.sizes(d_model)
    fields['scale'] = fields['scale'] or fields['head_dim'] ** -0.5
    fields['bias'] = ''.join(sorted(fields['bias']))
  return type(node)(**fields)
