"""Adapters folded into the weights that they add to."""

import dataclasses
from typing import Any

import jax

from tfm.core import errors
from tfm.core.axes import n_inputs
from tfm.model.spec import Model, blocks
from tfm.model.transformer import param_letters
from tfm.parts.adapter.base import Adapter
from tfm.parts.rounding.base import Rounding


def merge_adapters(spec: Model, params: Any) -> tuple[Model, Any]:
  """(the spec without its adapter, the parameters that compute the same).

  Raises:
    UserError: weights are rounded in every forward pass, which the sum with an adapter does not
    survive.

  Example: `spec, params = merge_adapters(m.spec, m.params)`, then `tfm.export_hf(spec, params, path)`.
  """
  if spec.adapter == Adapter():
    return spec, params
  stacks = (spec, *spec.towers.values())
  if odd := next((b.rounding for t in stacks for b in blocks(t) if b.rounding != Rounding()), None):
    raise errors.UserError(
      f'merge_adapters: rounding={odd.table().name_of(odd)} rounds weights in every forward pass, '
      f'and an adapter is '
      'added without rounding. Expected rounding=none, or the model with its adapter (tfm.save, '
      '--to=peft).'
    )
  return dataclasses.replace(spec, adapter=Adapter()), _merged(
    spec.adapter, params, param_letters(spec)
  )


def _merged(adapter: Adapter, node: Any, letters: Any) -> Any:
  if not isinstance(node, dict):
    return node
  inner = {name: _merged(adapter, node[name], letters[name]) for name in node if name != 'lora'}
  if 'lora' not in node:
    return inner
  axes = letters['kernel']
  n_in = n_inputs(axes.removeprefix('L'))
  fold = lambda kernel, own: adapter.merge(kernel, own, n_in)
  return inner | {
    'kernel': (jax.vmap(fold) if axes.startswith('L') else fold)(node['kernel'], node['lora'])
  }
