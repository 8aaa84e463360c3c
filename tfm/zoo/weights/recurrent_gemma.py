"""Checkpoints of RecurrentGemma."""

from tfm.zoo import recurrent_gemma
from tfm.zoo.weights import llama
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import Depthwise, Whole, renamed

_LAYER = 'model.layers.*'
_BLOCK = f'{_LAYER}.temporal_block'
_GATES = f'{_BLOCK}.rg_lru'

NAMES: Names = {
  **renamed(renamed(llama.NAMES, '.self_attn.', '.temporal_block.'), '.mlp.', '.mlp_block.'),
  '*/rglru/x': f'{_BLOCK}.linear_x',
  '*/rglru/gate': f'{_BLOCK}.linear_y',
  '*/rglru/o': f'{_BLOCK}.linear_out',
  '*/rglru/conv': Depthwise(f'{_BLOCK}.conv_1d'),
  '*/rglru/start': Whole(f'{_GATES}.recurrent_param'),
  '*/rglru/input/weight': Whole(f'{_GATES}.input_gate_weight'),
  '*/rglru/input/bias': Whole(f'{_GATES}.input_gate_bias'),
  '*/rglru/decay/weight': Whole(f'{_GATES}.recurrent_gate_weight'),
  '*/rglru/decay/bias': Whole(f'{_GATES}.recurrent_gate_bias'),
  '*/mixer_norm': f'{_LAYER}.temporal_pre_norm',
  '*/ffn_norm': f'{_LAYER}.channel_pre_norm',
  'norm': 'model.final_norm',
}

FAMILY = Family('RecurrentGemma', recurrent_gemma.read, recurrent_gemma.write, NAMES)
