"""Checkpoints of LongT5: T5's names, except the encoder's attention."""

from tfm.zoo import longt5
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import Whole
from tfm.zoo.weights.t5 import IGNORED, TIED, TOPS
from tfm.zoo.weights.t5 import names as t5_names


def names(m: FamilyModel) -> Names:
  """Return T5's names and the names of the global blocks."""
  stack, at = ('encoder/', m.encoder) if m.encoder is not None else ('', m)
  if not hasattr(at.segments[0].pattern[0].mixer, 'pool'):
    return t5_names(m, 'LocalSelfAttention')
  attention = 'encoder.block.*.layer.0.TransientGlobalSelfAttention'
  table = f'{attention}.global_relative_attention_bias.weight'.replace('*', '0')
  global_names: Names = {
    f'{stack}*/mixer/norm': f'{attention}.global_input_layer_norm',
    f'{stack}shared_relative/blocks': Whole(table),
  }  # fmt: skip
  return {**t5_names(m, 'TransientGlobalSelfAttention'), **global_names}


FAMILY = Family(
  'LongT5', longt5.read, longt5.write, names, '', 'ForConditionalGeneration',
  {'EncoderModel': TOPS['EncoderModel']}, TIED, IGNORED,
)  # fmt: skip
