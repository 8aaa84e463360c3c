"""`quantization_config` of `quant_method` bitnet: how the projections of a published model round."""

from collections.abc import Mapping
import dataclasses
from typing import Any

from tfm.core import errors
from tfm.model.spec import Model, blocks
from tfm.parts.rounding.ternary import Ternary

METHOD = 'bitnet'

#: Types whose projections, but for the head, all are linear layers of transformers, and are
#: compared with it.
TYPES = ('bitnet', 'llama')

#: Option -> the values that are read.
_READ: dict[str, tuple[Any, ...]] = {
  'linear_class': ('bitlinear', 'autobitlinear'),
  'quantization_mode': ('offline', 'online'),
  'modules_to_not_convert': (None, ['lm_head']),
  'use_rms_norm': (False,),
}


def options(said: Mapping[str, Any], where: str) -> dict[str, Any]:
  """Return the options of a `quantization_config`, with defaults for those that it lacks.

  Raises:
    UserError: an option has a value that is not read.
  """
  found = {name: said.get(name, known[0]) for name, known in _READ.items()}
  for name, value in found.items():
    if value not in _READ[name]:
      known = ', '.join(map(repr, _READ[name]))
      raise errors.UserError(
        f'{where}: quantization_config: {name} is {value!r}. Expected one of {known}.'
      )
  return found


def is_online(said: Mapping[str, Any], where: str) -> bool:
  """Return whether weights are rounded in every forward pass, and not once for all.

  Raises:
    UserError: see `options`.
  """
  found = options(said, where)
  return found['linear_class'] == 'autobitlinear' and found['quantization_mode'] == 'online'


def read(spec: Model, values: Mapping[str, Any], architecture: str, where: str) -> Model:
  """Return the spec with the rounding that a config asks for.

  Args:
    spec: What the other fields describe.
    values: The fields of the config.
    architecture: The class of transformers.
    where: The config, for errors.

  Raises:
    UserError: an option is not read, or another class rounds.
  """
  said = values.get('quantization_config') or {}
  if said.get('quant_method') != METHOD:
    return spec
  if values['model_type'] not in TYPES or not architecture.endswith('ForCausalLM'):
    known = ' or '.join(TYPES)
    raise errors.UserError(
      f'{where}: quantization_config: quant_method bitnet of a {architecture} is not read. '
      f'Expected model_type {known} '
      'and a class ForCausalLM.'
    )
  rounding = Ternary(weights=is_online(said, where))
  pattern = lambda blocks: tuple(dataclasses.replace(block, rounding=rounding) for block in blocks)
  segments = tuple(
    dataclasses.replace(segment, pattern=pattern(segment.pattern)) for segment in spec.segments
  )
  return dataclasses.replace(spec, segments=segments)


def write(spec: Model) -> dict[str, Any]:
  """Return the fields of a config that ask for the rounding of a spec: none without rounding, or of
  no method.
  """
  if not is_stored(spec) and {block.rounding for block in blocks(spec)} != {Ternary()}:
    return {}
  mode = 'offline' if is_stored(spec) else 'online'
  said = {'quant_method': METHOD, 'linear_class': 'autobitlinear', 'quantization_mode': mode}
  return {'quantization_config': said}


def is_stored(spec: Model) -> bool:
  """Return whether the weights of a spec are stored as its blocks would round them."""
  return {block.rounding for block in blocks(spec)} == {Ternary(weights=False)}
