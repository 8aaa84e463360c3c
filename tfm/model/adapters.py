"""Merging of adapters into the weights that they modify."""

import dataclasses
from typing import Any

import jax

from tfm.core import errors
from tfm.core.axes import n_inputs
from tfm.model.spec import Model, blocks
from tfm.model.stack import Params
from tfm.model.transformer import param_letters
from tfm.parts.adapter.base import Adapter
from tfm.parts.rounding.base import Rounding
from tfm.parts.stored import Stored


def merge_adapters(spec: Model, params: Params) -> tuple[Model, Params]:
  """Merge the adapter of a model (LoRA, arXiv:2106.09685) into its weights.

  Args:
    spec: A model, with or without an adapter.
    params: Its parameters.

  Returns:
    (the spec without the adapter, parameters with the same outputs).

  Raises:
    UserError: Weights are quantized, or rounded in every forward pass, and adapters are not.

  Example:
    `spec, params = merge_adapters(m.spec, m.params)`, then `tfm.export_hf(spec, params, path)`.
  """
  if spec.adapter == Adapter():
    return spec, params
  roundings = [b.rounding for t in (spec, *spec.towers.values()) for b in blocks(t)]
  if rounded := next((r for r in roundings if r != Rounding()), None):
    raise errors.UserError(
      f'merge_adapters: rounding={rounded.table().name_of(rounded)} rounds weights in every '
      'forward pass, and an adapter is added without rounding. Expected rounding=none, or the '
      'model with its adapter (tfm.save, --to=peft).'
    )
  if any(map(_is_stored, jax.tree.leaves(params, is_leaf=_is_stored))):
    raise errors.UserError(
      'merge_adapters: weights are quantized, and the sum would need another format. Expected '
      'parameters in floats, or the model with its adapter (tfm convert --to=peft).'
    )
  merged = _merged(spec.adapter, params, param_letters(spec))
  return dataclasses.replace(spec, adapter=Adapter()), merged


def _is_stored(node: Any) -> bool:
  return isinstance(node, Stored)


def _merged(adapter: Adapter, node: Any, letters: Any) -> Any:
  if not isinstance(node, dict):
    return node
  new = {name: _merged(adapter, node[name], letters[name]) for name in node if name != 'lora'}
  if 'lora' not in node:
    return new
  axes = letters['kernel']
  n_in = n_inputs(axes.removeprefix('L'))
  merge = lambda kernel, lora: adapter.merge(kernel, lora, n_in)
  if axes.startswith('L'):
    merge = jax.vmap(merge)
  return new | {'kernel': merge(node['kernel'], node['lora'])}
