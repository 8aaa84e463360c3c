"""BERT and its relatives as decoders: `is_decoder` makes the attention mask causal."""

from collections.abc import Callable
import dataclasses
from typing import Any

from tfm.core import errors
from tfm.model.spec import Model
from tfm.parts.mask.causal import Causal
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields


def reader(read: Callable[[Fields], Model]) -> Callable[[Fields], Model]:
  """Return a function that reads configs of encoders, and of decoders if `is_decoder` is true."""

  def read_either(c: Fields) -> Model:
    if not c.get('is_decoder', False):
      return read(c)
    name = (c.get('architectures') or [''])[0]
    if name.endswith('ForMaskedLM'):
      raise errors.UserError(
        f'{c.where}: architectures is {name}, and is_decoder is true. Expected is_decoder=false, '
        'or a decoder class such as BertLMHeadModel or RobertaForCausalLM.'
      )
    return causal(read(c.changed(is_decoder=False)))

  return read_either


def writer(write: Callable[[Any], dict[str, Any]]) -> Callable[[Any], dict[str, Any]]:
  """Return a function that writes the fields of `write`, and `is_decoder` for a causal model."""

  def write_either(m: FamilyModel) -> dict[str, Any]:
    return {**write(m), 'is_decoder': True} if m.causal else write(m)

  return write_either


def causal(spec: Model) -> Model:
  """Return an encoder's spec with causal attention masks."""
  segments = []
  for segment in spec.segments:
    blocks: list[Any] = list(segment.pattern)
    blocks = [
      dataclasses.replace(b, mixer=dataclasses.replace(b.mixer, mask=Causal())) for b in blocks
    ]
    segments.append(dataclasses.replace(segment, pattern=tuple(blocks)))
  return dataclasses.replace(spec, segments=tuple(segments))
