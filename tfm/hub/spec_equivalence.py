"""When two specs compute the same: sizes that follow from others written out, what runs choose left
out.
"""

import dataclasses
from typing import Any

from tfm.core.frozen import FrozenMap
from tfm.model.spec import Model, Segment, Tower
from tfm.parts.heads import Heads
from tfm.parts.init.base import Init

#: Fields that change only training, how a table starts, or how long the rows are that are told, and
#: what stands in their place.
_CHOSEN = {
  'dropout': 0.0,
  'drop_path': 0.0,
  'balance': 0.0,
  'z': 0.0,
  'rate': None,
  'served': None,
  'start': 'noise',
}


def normalised(spec: Model) -> Model:
  """`spec` as far as it says what is computed of given parameters without dropout."""
  return dataclasses.replace(_plain(spec, spec.d_model), init=Init())


def flattened(spec: Model) -> Model:
  """`spec` with every layer written out, however they are parted into segments."""
  towers = {name: _flattened(tower) for name, tower in spec.towers.items()}
  return dataclasses.replace(_flattened(spec), towers=towers)


def _flattened(stack: Any) -> Any:
  found: list[Segment] = []
  for s in stack.segments:
    if s.shared:
      found.append(s)
      continue
    joins = found and not found[-1].shared and s.resample is None and found[-1].unit == s.unit
    before = found.pop() if joins else dataclasses.replace(s, pattern=(), repeats=1)
    found.append(
      dataclasses.replace(before, pattern=before.pattern + s.pattern * s.repeats, repeats=1)
    )
  return dataclasses.replace(stack, segments=tuple(found))


def _plain(node: Any, d_model: int) -> Any:
  if isinstance(node, tuple):
    return tuple(_plain(n, d_model) for n in node)
  if isinstance(node, FrozenMap):
    return FrozenMap({name: _plain(value, d_model) for name, value in node.items()})
  if not dataclasses.is_dataclass(node) or isinstance(node, type):
    return node
  if isinstance(node, Tower):
    d_model = node.d_model or d_model
  fields = {
    f.name: _plain(getattr(node, f.name), d_model) for f in dataclasses.fields(node) if f.init
  }
  fields |= {name: value for name, value in _CHOSEN.items() if name in fields}
  if isinstance(node, Heads):
    _, fields['kv_heads'], fields['head_dim'] = node.sizes(d_model)
    fields['scale'] = fields['scale'] or fields['head_dim'] ** -0.5
    fields['bias'] = ''.join(sorted(fields['bias']))
  return type(node)(**fields)
