"""Checkpoints of GPT-OSS: all experts of a layer in one tensor, gate and up interleaved.

The published tensors are quantized (MXFP4); `tfm.hub.quantized` dequantizes them while loading.
"""

from tfm.zoo import gpt_oss
from tfm.zoo.weights import llama
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import Stacked, Whole
from tfm.zoo.weights.tops import DECODER

_EXPERTS = 'model.layers.*.mlp.experts'
NAMES: Names = {
  **llama.NAMES,
  '*/mixer/sink': Whole('model.layers.*.self_attn.sinks'),
  '*/ffn/router/score': 'model.layers.*.mlp.router',
  ('*/ffn/expert/gate/kernel', '*/ffn/expert/up/kernel'): Stacked(
    f'{_EXPERTS}.gate_up_proj', True, True
  ),
  ('*/ffn/expert/gate/bias', '*/ffn/expert/up/bias'): Stacked(
    f'{_EXPERTS}.gate_up_proj_bias', True, True
  ),
  '*/ffn/expert/down/kernel': Stacked(f'{_EXPERTS}.down_proj', True),
  '*/ffn/expert/down/bias': Stacked(f'{_EXPERTS}.down_proj_bias'),
}

FAMILY = Family('GptOss', gpt_oss.read, gpt_oss.write, NAMES, tops=DECODER)
