"""Rounding of projections in published configs: `quantization_config` of BitNet."""

from collections.abc import Mapping
import dataclasses
from typing import Any

from tfm.core import errors
from tfm.model.spec import Model, blocks
from tfm.parts.rounding.ternary import Ternary

METHOD = 'bitnet'

#: Model types that are compared with transformers. All their projections except the head are linear
#: layers there.
TYPES = ('bitnet', 'llama')

#: Option -> the supported values, the default first.
_SUPPORTED: dict[str, tuple[Any, ...]] = {
  'linear_class': ('bitlinear', 'autobitlinear'),
  'quantization_mode': ('offline', 'online'),
  'modules_to_not_convert': (None, ['lm_head']),
  'use_rms_norm': (False,),
}


def options(config: Mapping[str, Any], where: str) -> dict[str, Any]:
  """Return the options of a `quantization_config`, including defaults.

  Raises:
    UserError: The value of an option is not supported.
  """
  values = {name: config.get(name, known[0]) for name, known in _SUPPORTED.items()}
  for name, value in values.items():
    if value not in _SUPPORTED[name]:
      known = ', '.join(map(repr, _SUPPORTED[name]))
      raise errors.UserError(
        f'{where}: quantization_config: {name} is {value!r}. Expected any of {known}.'
      )
  return values


def is_online(config: Mapping[str, Any], where: str) -> bool:
  """Return whether weights are rounded in every forward pass, rather than stored rounded.

  Raises:
    UserError: The value of an option is not supported.
  """
  values = options(config, where)
  return values['linear_class'] == 'autobitlinear' and values['quantization_mode'] == 'online'


def read(spec: Model, values: Mapping[str, Any], architecture: str, where: str) -> Model:
  """Return a spec with the rounding of a config.

  Args:
    spec: The spec of the other fields.
    values: The fields of the config.
    architecture: The class name in transformers.
    where: The path of the config, for errors.

  Returns:
    The spec, unchanged if the config has no rounding.

  Raises:
    UserError: An option or the class is not supported.
  """
  config = values.get('quantization_config') or {}
  if config.get('quant_method') != METHOD:
    return spec
  if values['model_type'] not in TYPES or not architecture.endswith('ForCausalLM'):
    known = ' or '.join(TYPES)
    raise errors.UserError(
      f'{where}: quantization_config: quant_method bitnet is not supported for {architecture}. '
      f'Expected model_type {known}, and a class ForCausalLM.'
    )
  rounding = Ternary(weights=is_online(config, where))
  pattern = lambda blocks: tuple(dataclasses.replace(block, rounding=rounding) for block in blocks)
  segments = tuple(
    dataclasses.replace(segment, pattern=pattern(segment.pattern)) for segment in spec.segments
  )
  return dataclasses.replace(spec, segments=segments)


def write(spec: Model) -> dict[str, Any]:
  """Return the config fields for the rounding of a spec; empty if it has no published form."""
  if not is_stored(spec) and {block.rounding for block in blocks(spec)} != {Ternary()}:
    return {}
  mode = 'offline' if is_stored(spec) else 'online'
  config = {'quant_method': METHOD, 'linear_class': 'autobitlinear', 'quantization_mode': mode}
  return {'quantization_config': config}


def is_stored(spec: Model) -> bool:
  """Return whether the weights of a spec are stored in rounded form."""
  return {block.rounding for block in blocks(spec)} == {Ternary(weights=False)}
