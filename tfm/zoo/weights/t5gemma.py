"""Checkpoints of T5Gemma."""

from tfm.zoo import t5gemma
from tfm.zoo.weights.family import Family, Names, nested

_ATTENTION = {'q': 'q_proj', 'k': 'k_proj', 'v': 'v_proj', 'o': 'o_proj'}
_LAYER = {
  **nested(_ATTENTION, 'mixer/', 'self_attn.'),
  **nested(_ATTENTION, 'cross/', 'cross_attn.'),
  'ffn/gate': 'mlp.gate_proj',
  'ffn/up': 'mlp.up_proj',
  'ffn/down': 'mlp.down_proj',
  'mixer_norm': 'pre_self_attn_layernorm',
  'mixer_post_norm': 'post_self_attn_layernorm',
  'cross_norm': 'pre_cross_attn_layernorm',
  'cross_post_norm': 'post_cross_attn_layernorm',
  'ffn_norm': 'pre_feedforward_layernorm',
  'ffn_post_norm': 'post_feedforward_layernorm',
}
NAMES: Names = {
  'embed': 'model.decoder.embed_tokens',
  'encoder/embed': 'model.encoder.embed_tokens',
  **nested(_LAYER, '*/', 'model.decoder.layers.*.'),
  **nested(_LAYER, 'encoder/*/', 'model.encoder.layers.*.'),
  'norm': 'model.decoder.norm',
  'encoder/norm': 'model.encoder.norm',
  'head/head': 'lm_head.out_proj',
}

FAMILY = Family(
  'T5Gemma', t5gemma.read, t5gemma.write, NAMES, 'model.', 'ForConditionalGeneration',
  tied=('lm_head.out_proj.weight',),
)  # fmt: skip
