"""Checkpoints of Jamba: Llama's attention, Mamba's mixers, and one tensor per expert."""

from tfm.zoo import jamba
from tfm.zoo.weights import llama
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.mamba import mixer_names
from tfm.zoo.weights.rules import renamed
from tfm.zoo.weights.tops import DECODER

_LAYER = 'model.layers.*'
_LAST = 'ForSequenceClassification'

NAMES: Names = {
  **renamed({**llama.NAMES, **llama.EXPERTS}, '.mlp.', '.feed_forward.'),
  '*/ffn/router/score': f'{_LAYER}.feed_forward.router',
  **mixer_names('mamba', f'{_LAYER}.mamba'),
  '*/mamba/rank_norm': f'{_LAYER}.mamba.dt_layernorm',
  '*/mamba/b_norm': f'{_LAYER}.mamba.b_layernorm',
  '*/mamba/c_norm': f'{_LAYER}.mamba.c_layernorm',
  '*/ffn_norm': f'{_LAYER}.pre_ff_layernorm',
  'norm': 'model.final_layernorm',
}

FAMILY = Family('Jamba', jamba.read, jamba.write, NAMES, tops={_LAST: DECODER[_LAST]})
