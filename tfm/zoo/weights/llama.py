"""Llama's checkpoints."""

from tfm.zoo import llama
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.tops import DECODER

#: Shared by the many decoders that took Llama's names.
NAMES: Names = {
  'embed': 'model.embed_tokens',
  '*/mixer/q': 'model.layers.*.self_attn.q_proj',
  '*/mixer/k': 'model.layers.*.self_attn.k_proj',
  '*/mixer/v': 'model.layers.*.self_attn.v_proj',
  '*/mixer/o': 'model.layers.*.self_attn.o_proj',
  '*/ffn/gate': 'model.layers.*.mlp.gate_proj',
  '*/ffn/up': 'model.layers.*.mlp.up_proj',
  '*/ffn/down': 'model.layers.*.mlp.down_proj',
  '*/mixer_norm': 'model.layers.*.input_layernorm',
  '*/ffn_norm': 'model.layers.*.post_attention_layernorm',
  'norm': 'model.norm',
  'head/head': 'lm_head',
}

FAMILY = Family(
  'Llama', llama.read, llama.write, NAMES, tops=DECODER, ignored=(r'rotary_emb\.inv_freq$',),
)  # fmt: skip
