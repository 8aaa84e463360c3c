"""Checkpoints of BLOOM."""

from tfm.zoo import bloom
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import FusedHeads
from tfm.zoo.weights.tops import GPT

#: Shared with Falcon.
NAMES: Names = {
  'embed': 'transformer.word_embeddings',
  'embed/norm': 'transformer.word_embeddings_layernorm',
  ('*/mixer/q', '*/mixer/k', '*/mixer/v'): FusedHeads(
    'transformer.h.*.self_attention.query_key_value'
  ),
  '*/mixer/o': 'transformer.h.*.self_attention.dense',
  '*/ffn/up': 'transformer.h.*.mlp.dense_h_to_4h',
  '*/ffn/down': 'transformer.h.*.mlp.dense_4h_to_h',
  '*/mixer_norm': 'transformer.h.*.input_layernorm',
  '*/ffn_norm': 'transformer.h.*.post_attention_layernorm',
  'norm': 'transformer.ln_f',
  'head/head': 'lm_head',
}

FAMILY = Family('Bloom', bloom.read, bloom.write, NAMES, 'transformer.', tops=GPT)
