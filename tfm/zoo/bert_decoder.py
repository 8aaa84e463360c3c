"""BERT and its kin as decoders: `is_decoder` makes the attention mask of their layers causal."""

from collections.abc import Callable
import dataclasses
from typing import Any

from tfm.core import errors
from tfm.model.spec import Model
from tfm.parts.mask.causal import Causal
from tfm.zoo.fields import Fields


def reader(read: Callable[[Fields], Model]) -> Callable[[Fields], Model]:
  """Return a function that reads a config of an encoder with `read`, and as a decoder if it says
  so.
  """

  def read_either(c: Fields) -> Model:
    if not c.get('is_decoder', False):
      return read(c)
    name = (c.get('architectures') or [''])[0]
    if name.endswith('ForMaskedLM'):
      raise errors.UserError(
        f'{c.where}: architectures is {name}, and is_decoder is true. '
        'Expected is_decoder=false, or a class of decoders: BertLMHeadModel, RobertaForCausalLM.'
      )
    return causal(read(c.changed(is_decoder=False)))

  return read_either


def writer(write: Callable[[Any], dict[str, Any]]) -> Callable[[Any], dict[str, Any]]:
  """Return a function that writes the fields of an encoder as `write` does, and those of a decoder."""

  def write_either(m: Any) -> dict[str, Any]:
    return {**write(m), 'is_decoder': True} if m.causal else write(m)

  return write_either


def causal(spec: Model) -> Model:
  """Return the spec with a causal mask in every layer.

  Args:
    spec: an encoder whose layers attend to all tokens.
  """
  segments = []
  for segment in spec.segments:
    blocks: list[Any] = list(segment.pattern)
    blocks = [
      dataclasses.replace(b, mixer=dataclasses.replace(b.mixer, mask=Causal())) for b in blocks
    ]
    segments.append(dataclasses.replace(segment, pattern=tuple(blocks)))
  return dataclasses.replace(spec, segments=tuple(segments))
