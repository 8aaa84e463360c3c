"""Checkpoints of CTRL."""

from tfm.zoo import ctrl
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import Whole

_LAYER = 'transformer.h.*'
NAMES: Names = {
  'embed': 'transformer.w',
  '*/mixer/q': f'{_LAYER}.multi_head_attention.Wq',
  '*/mixer/k': f'{_LAYER}.multi_head_attention.Wk',
  '*/mixer/v': f'{_LAYER}.multi_head_attention.Wv',
  '*/mixer/o': f'{_LAYER}.multi_head_attention.dense',
  '*/ffn/up': f'{_LAYER}.ffn.0',
  '*/ffn/down': f'{_LAYER}.ffn.2',
  '*/mixer_norm': f'{_LAYER}.layernorm1',
  '*/ffn_norm': f'{_LAYER}.layernorm2',
  'norm': 'transformer.layernorm',
  'head/head': 'lm_head',
  'head/bias': Whole('lm_head.bias'),
}

FAMILY = Family(
  'CTRL', ctrl.read, ctrl.write, NAMES, 'transformer.', 'LMHeadModel', ignored=(r'pos_encoding$',)
)
