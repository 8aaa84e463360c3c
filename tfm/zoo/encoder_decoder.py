"""Encoder-decoders of two pretrained BERT or RoBERTa encoders (Rothe et al., 2019)."""

from collections.abc import Mapping
import dataclasses
from typing import Any, NamedTuple

from tfm.core import errors
from tfm.model.spec import Model, Tower
from tfm.parts.cross.attention import CrossAttention
from tfm.parts.mask.causal import Causal
from tfm.zoo import bert, roberta
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel, FamilyTower
from tfm.zoo.fields import Fields

PAPER = 'Leveraging Pre-trained Checkpoints for Sequence Generation Tasks, arXiv:1907.12461'


class Kind(NamedTuple):
  """A family that either stack may have.

  Attributes:
    module: module with its `read` and `write`.
    model_type: its name in configs.
  """

  module: Any
  model_type: str


#: Learned positions start at 0 in BERT, and after the padding id in RoBERTa.
KINDS: Mapping[str, Kind] = {'bert': Kind(bert, 'bert'), 'roberta': Kind(roberta, 'roberta')}


def kind_of(stack: FamilyTower) -> Kind:
  """Return the family of a stack."""
  return KINDS['roberta' if stack.absolute.offset else 'bert']


def joined(encoder_spec: Any, decoder_spec: Any) -> Model:
  """Return an encoder-decoder of two encoders.

  The second becomes the decoder: its masks are causal and its layers have cross-attention.
  """
  (block,) = decoder_spec.segments[0].pattern
  attention = block.mixer
  cross = CrossAttention(attention.heads, bias='qkvo', dropout=attention.dropout)
  block = dataclasses.replace(
    block, mixer=dataclasses.replace(attention, mask=Causal()), cross=cross
  )
  encoder = Tower(
    encoder_spec.embed,
    encoder_spec.d_model,
    encoder_spec.segments,
    encoder_spec.absolute,
    encoder_spec.norm,
  )
  segment = dataclasses.replace(decoder_spec.segments[0], pattern=(block,))
  return dataclasses.replace(decoder_spec, segments=(segment,), towers={'encoder': encoder})


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json` with the configs of both stacks."""
  c.only(tie_encoder_decoder=False, tie_word_embeddings=True)
  parts = [c.part(name) for name in ('encoder', 'decoder')]
  for part in parts:
    part.only(cross_attention_hidden_size=None, tie_encoder_decoder=False)
  encoder_spec, decoder_spec = parts
  flags = {name: decoder_spec.get(name, False) for name in ('is_decoder', 'add_cross_attention')}
  if not all(flags.values()):
    found = ', '.join(f'{name} is {value}' for name, value in flags.items())
    raise errors.UserError(f'{decoder_spec.where}: {found}. Expected true for both.')
  if (d := decoder_spec['hidden_size']) != encoder_spec['hidden_size']:
    raise errors.UserError(
      f'{decoder_spec.where}: hidden_size is {d}, and the encoder has '
      f'{encoder_spec["hidden_size"]}. Expected equal widths; tfm has no projection between them.'
    )
  kinds = [part.choice('model_type', KINDS) for part in parts]
  decoder = decoder_spec.changed(is_decoder=False, add_cross_attention=False)
  return joined(kinds[0].module.read(encoder_spec), kinds[1].module.read(decoder))


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  encoder_spec, kinds = m.tower('encoder'), (kind_of(m.encoder), kind_of(m))
  encoder, decoder = (
    {**k.module.write(s), 'model_type': k.model_type}
    for k, s in zip(kinds, (encoder_spec, m), strict=True)
  )
  return {
    'encoder': encoder, 'decoder': {**decoder, 'is_decoder': True, 'add_cross_attention': True},
    'is_encoder_decoder': True,
  }  # fmt: skip


_BERT, _ROBERTA = bert.bert(12, 768, 12), roberta.roberta(12, 768, 12)
MODELS = {
  'bert2bert-base': Entry(joined(_BERT, _BERT), 246_772_794, '247M', PAPER),
  'roberta2roberta-base': Entry(joined(_ROBERTA, _ROBERTA), 277_119_321, '277M', PAPER),
}
