"""Rotary position embeddings of configs with extra keys in `rope_parameters`."""

from typing import Any

from tfm.parts.relative.rope import RoPE
from tfm.zoo.fields import Fields

_WHERE = ('rope_parameters', 'rope_scaling')


def rope_fields(c: Fields) -> dict[str, Any]:
  """Return the keys of `rope_parameters`, or of the older `rope_scaling`."""
  found = [dict(c.get(name, {})) for name in _WHERE]
  return {**found[1], **found[0]}


def rope_from(c: Fields, fields: dict[str, Any], base: float = 1e4, **how: Any) -> RoPE:
  """Return the rotary position embedding of a config with other `rope_parameters`.

  Args:
    c: fields of the config.
    fields: keys to use in place of `rope_parameters`.
    base: base if `fields` has none.
    **how: further arguments of `Fields.rope`.

  Returns:
    The rotary position embedding with its scaling.
  """
  rest = {name: value for name, value in c.values_.items() if name not in _WHERE}
  c.skip(
    'rope_theta',
    'partial_rotary_factor',
    'max_position_embeddings',
    'original_max_position_embeddings',
  )
  return Fields({**rest, 'rope_parameters': fields}, c.where).rope(base, **how)
