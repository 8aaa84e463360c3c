"""Updates of parameters without gradients, such as the biases that balance expert load."""

from typing import Any

from tfm.model import mtp
from tfm.model.spec import Model, Tower
from tfm.model.stack import Params


def update_params(spec: Model, params: Params, load: Params) -> Params:
  """Return the parameters after the load-based updates of one step.

  Args:
    spec: The model.
    params: Its parameters, after the optimizer's update.
    load: The output `load` of `apply`, summed over the tokens of the step.

  Returns:
    Parameters of the same structure.
  """
  new = _update_tower(spec, params, load)
  for name, tower in spec.towers.items():
    if name in load:
      new[name] = _update_tower(tower, params[name], load[name])
  if 'mtp' in load:
    layer = mtp.one_layer(spec)
    new['mtp'] = {
      depth: _update_tower(layer, subtree, load['mtp'][depth])
      for depth, subtree in params['mtp'].items()
    }
  return new


def _update_tower(tower: Tower, params: Params, load: Params) -> Params:
  new = dict(params)
  for i, segment in enumerate(tower.segments):
    segment_name = f'segment_{i}'
    changed: dict[str, Any] = {}
    for j, block in enumerate(segment.pattern):
      name = f'block_{j}'
      block_load = load.get(segment_name, {}).get(name)
      if not block_load:
        continue
      old = params[segment_name][name]
      changed[name] = dict(old)
      for field, ffn in block.ffns.items():
        if field in block_load:
          changed[name][field] = ffn.updated(old[field], block_load[field])
    new[segment_name] = params[segment_name] | changed
  return new
