"""Checkpoints of Hunyuan: Llama's names and two norms in each attention."""

from tfm.zoo import hunyuan_v1_dense
from tfm.zoo.weights import llama
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.tops import DECODER

NAMES: Names = {
  **llama.NAMES,
  '*/mixer/q_norm': 'model.layers.*.self_attn.query_layernorm',
  '*/mixer/k_norm': 'model.layers.*.self_attn.key_layernorm',
}
TOPS = {'ForSequenceClassification': DECODER['ForSequenceClassification']}
FAMILY = Family('HunYuanDenseV1', hunyuan_v1_dense.read, hunyuan_v1_dense.write, NAMES, tops=TOPS)
