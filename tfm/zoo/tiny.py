"""Shrink any model of the zoo to toy size, for tests and experiments."""

from collections.abc import Mapping
import dataclasses
from typing import Any

from tfm.model.spec import Model

_SIZES = {
  'vocab': 64, 'd_model': 32, 'repeats': 2, 'd_ff': 48, 'max_len': 64, 'size': 4, 'dim': 16,
  'pool': 4, 'image': 16,
  'placeholder': 63, 'count': 8, 'waves': 8, 'classes': 4, 'timesteps': 16, 'labels': 8,
  'codes': 16,
  'experts': 8, 'k': 2, 'groups': 4, 'keep': 2,
  'd_state': 8, 'rank': 4, 'width': 32, 'key_heads': 2, 'key_dim': 8, 'norm_groups': 2,
  'layer_vocab': 64, 'layer_dim': 8, 'inputs': 8,
  'q_rank': 24, 'kv_rank': 16, 'nope_dim': 8, 'rope_dim': 4, 'v_dim': 12,
}  # fmt: skip
_HEADS, _HEAD_DIM = 4, 8


def tiny(spec: Model) -> Model:
  """Return `spec` with the same parts and toy sizes.

  The model has width 32, at most 4 heads, 2 repeats of each segment and a vocabulary of 64.
  """
  return _shrunk(spec)


def _shrunk(node: Any) -> Any:
  if isinstance(node, tuple):
    return tuple(_shrunk(n) for n in node)
  if isinstance(node, Mapping):
    return {name: _shrunk(n) for name, n in node.items()}
  if not dataclasses.is_dataclass(node) or isinstance(node, type):
    return node
  fields = {f.name: getattr(node, f.name) for f in dataclasses.fields(node) if f.init}
  return dataclasses.replace(
    node, **{name: _value(name, value, fields) for name, value in fields.items()}
  )


def _value(name: str, value: Any, fields: dict[str, Any]) -> Any:
  if name in _SIZES and isinstance(value, int):
    return min(value, _SIZES[name])
  if name == 'heads' and isinstance(value, int):
    return 1 << (min(value, _HEADS).bit_length() - 1)  # a power of 2 divides the width
  if name == 'kv_heads' and value is not None:
    # Keep the structure: one key/value head, the number of heads, or fewer.
    return {fields['heads']: min(value, _HEADS), 1: 1}.get(value, 2)
  if name == 'head_dim' and value is not None:
    return min(value, _HEAD_DIM)
  if name == 'fraction':
    return max(1, round(value * _HEAD_DIM / 2)) / (_HEAD_DIM / 2)  # whole pairs of dimensions
  return _shrunk(value)
