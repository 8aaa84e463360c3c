"""Checkpoints of LFM2."""

from tfm.zoo import lfm2
from tfm.zoo.weights import llama
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import Depthwise, Fused

_LAYER = 'model.layers.*'

NAMES: Names = {
  **llama.NAMES,
  '*/mixer/o': f'{_LAYER}.self_attn.out_proj',
  '*/mixer/q_norm': f'{_LAYER}.self_attn.q_layernorm',
  '*/mixer/k_norm': f'{_LAYER}.self_attn.k_layernorm',
  ('*/gated_conv/b', '*/gated_conv/c', '*/gated_conv/x'): Fused(f'{_LAYER}.conv.in_proj'),
  '*/gated_conv/conv': Depthwise(f'{_LAYER}.conv.conv'),
  '*/gated_conv/o': f'{_LAYER}.conv.out_proj',
  '*/ffn/gate': f'{_LAYER}.feed_forward.w1',
  '*/ffn/down': f'{_LAYER}.feed_forward.w2',
  '*/ffn/up': f'{_LAYER}.feed_forward.w3',
  '*/mixer_norm': f'{_LAYER}.operator_norm',
  '*/ffn_norm': f'{_LAYER}.ffn_norm',
  'norm': 'model.embedding_norm',
}

FAMILY = Family('Lfm2', lfm2.read, lfm2.write, NAMES)
