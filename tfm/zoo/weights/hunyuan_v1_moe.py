"""Checkpoints of Hunyuan mixtures."""

from tfm.zoo import hunyuan_v1_moe
from tfm.zoo.weights import llama
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.tops import DECODER

_LAYER = 'model.layers.*'
_LAST = 'ForSequenceClassification'

NAMES: Names = {
  **llama.NAMES,
  **llama.EXPERTS,
  '*/ffn/router/score': f'{_LAYER}.mlp.gate.wg',
  '*/ffn/shared/gate': f'{_LAYER}.mlp.shared_mlp.gate_proj',
  '*/ffn/shared/up': f'{_LAYER}.mlp.shared_mlp.up_proj',
  '*/ffn/shared/down': f'{_LAYER}.mlp.shared_mlp.down_proj',
  '*/mixer/q_norm': f'{_LAYER}.self_attn.query_layernorm',
  '*/mixer/k_norm': f'{_LAYER}.self_attn.key_layernorm',
}

FAMILY = Family(
  'HunYuanMoEV1', hunyuan_v1_moe.read, hunyuan_v1_moe.write, NAMES, tops={_LAST: DECODER[_LAST]}
)
