"""Checkpoints of GPT-NeoX: q, k and v are fused per head, as in BLOOM and Falcon."""

from tfm.zoo import gpt_neox
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import FusedHeads
from tfm.zoo.weights.tops import GPT

NAMES: Names = {
  'embed': 'gpt_neox.embed_in',
  ('*/mixer/q', '*/mixer/k', '*/mixer/v'): FusedHeads(
    'gpt_neox.layers.*.attention.query_key_value'
  ),
  '*/mixer/o': 'gpt_neox.layers.*.attention.dense',
  '*/ffn/up': 'gpt_neox.layers.*.mlp.dense_h_to_4h',
  '*/ffn/down': 'gpt_neox.layers.*.mlp.dense_4h_to_h',
  '*/mixer_norm': 'gpt_neox.layers.*.input_layernorm',
  '*/ffn_norm': 'gpt_neox.layers.*.post_attention_layernorm',
  'norm': 'gpt_neox.final_layer_norm',
  'head/head': 'embed_out',
}

FAMILY = Family(
  'GPTNeoX', gpt_neox.read, gpt_neox.write, NAMES, 'gpt_neox.', tops=GPT,
  tied=('embed_out.weight',),
  ignored=(r'\.attention\.(masked_)?bias$', r'rotary_emb\.inv_freq$'),
)  # fmt: skip
