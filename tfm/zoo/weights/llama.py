"""Checkpoints of Llama."""

from tfm.zoo import llama
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import Fused
from tfm.zoo.weights.tops import DECODER

#: Names that many decoders share.
NAMES: Names = {
  'embed': 'model.embed_tokens',
  '*/mixer/q': 'model.layers.*.self_attn.q_proj',
  '*/mixer/k': 'model.layers.*.self_attn.k_proj',
  '*/mixer/v': 'model.layers.*.self_attn.v_proj',
  '*/mixer/o': 'model.layers.*.self_attn.o_proj',
  '*/mixer/q_norm': 'model.layers.*.self_attn.q_norm',
  '*/mixer/k_norm': 'model.layers.*.self_attn.k_norm',
  '*/ffn/gate': 'model.layers.*.mlp.gate_proj',
  '*/ffn/up': 'model.layers.*.mlp.up_proj',
  '*/ffn/down': 'model.layers.*.mlp.down_proj',
  '*/mixer_norm': 'model.layers.*.input_layernorm',
  '*/ffn_norm': 'model.layers.*.post_attention_layernorm',
  'norm': 'model.norm',
  'head/head': 'lm_head',
}

#: Fused gate and up projections.
GATE_UP: Names = {('*/ffn/gate', '*/ffn/up'): Fused('model.layers.*.mlp.gate_up_proj')}

#: Norms after the branches, in place of norms before them.
AFTER: Names = {
  '*/mixer_norm': 'model.layers.*.post_attention_layernorm',
  '*/ffn_norm': 'model.layers.*.post_feedforward_layernorm',
}

#: A mixture of experts with one tensor per expert.
EXPERTS: Names = {
  '*/ffn/router/score': 'model.layers.*.mlp.gate',
  '*/ffn/expert/gate': 'model.layers.*.mlp.experts.*.gate_proj',
  '*/ffn/expert/up': 'model.layers.*.mlp.experts.*.up_proj',
  '*/ffn/expert/down': 'model.layers.*.mlp.experts.*.down_proj',
}

FAMILY = Family(
  'Llama', llama.read, llama.write, NAMES, tops=DECODER, ignored=(r'rotary_emb\.inv_freq$',),
)  # fmt: skip
