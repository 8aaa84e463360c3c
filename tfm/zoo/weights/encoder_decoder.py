"""Checkpoints of encoder-decoders of two encoders: the names of each, with a prefix per stack."""

from typing import Any

from tfm.zoo import encoder_decoder
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.weights import bert, roberta
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import renamed

_NAMES: dict[str, Names] = {'bert': bert.NAMES, 'roberta': roberta.NAMES}


def names(m: FamilyModel) -> Names:
  """Return the names of the encoder, which has no head, and of the decoder, which has one."""
  kinds = [encoder_decoder.kind_of(stack).model_type for stack in (m.encoder, m)]
  encoder_names, decoder_names = (_NAMES[kind] for kind in kinds)
  body = f'{kinds[1]}.'
  for module in (body, 'cls.', 'lm_head.'):
    decoder_names = renamed(decoder_names, module, f'decoder.{module}')
  decoder: dict[Any, Any] = {
    **decoder_names,
    **_cross(f'decoder.{body}encoder.layer.*.crossattention'),
  }
  encoder: dict[Any, Any] = {
    f'encoder/{path}': name
    for path, name in renamed(encoder_names, f'{kinds[0]}.', 'encoder.').items()
  }
  return {**decoder, **encoder}


def _cross(module: str) -> Names:
  projections = {'q': 'query', 'k': 'key', 'v': 'value'}
  attention: dict[Any, Any] = {
    f'*/cross/{path}': f'{module}.self.{name}' for path, name in projections.items()
  }
  return {
    **attention,
    '*/cross/o': f'{module}.output.dense',
    '*/cross_norm': f'{module}.output.LayerNorm',
  }


FAMILY = Family(
  'EncoderDecoder', encoder_decoder.read, encoder_decoder.write, names, '', 'Model',
  tied=('decoder.cls.predictions.decoder.weight', 'decoder.lm_head.decoder.weight'),
  ignored=(r'position_ids$', r'pooler\.dense\.', r'\.decoder\.bias$'),
)  # fmt: skip
