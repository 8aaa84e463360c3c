"""Parameters that no gradient moves: parts change them after each step by the load they have seen."""

from typing import Any

from tfm.model import mtp
from tfm.model.spec import Model, Tower
from tfm.model.stack import Params


def updated(spec: Model, params: Params, load: Params) -> Params:
  """The parameters after a step, by the `load` that `apply` returned, summed over the tokens of the
  step.
  """
  out = _stack(spec, params, load)
  for name, tower in spec.towers.items():
    if name in load:
      out[name] = _stack(tower, params[name], load[name])
  if 'mtp' in load:
    out['mtp'] = {
      name: _stack(mtp.one_layer(spec), own, load['mtp'][name])
      for name, own in params['mtp'].items()
    }
  return out


def _stack(stack: Tower, params: Params, load: Params) -> Params:
  out = dict(params)
  for i, segment in enumerate(stack.segments):
    at = f'segment_{i}'
    changed: dict[str, Any] = {}
    for j, block in enumerate(segment.pattern):
      if seen := load.get(at, {}).get(name := f'block_{j}'):
        own = params[at][name]
        ffns = {field: part for field, part in block.ffns.items() if field in seen}
        changed[name] = own | {
          field: part.updated(own[field], seen[field]) for field, part in ffns.items()
        }
    out[at] = params[at] | changed
  return out
