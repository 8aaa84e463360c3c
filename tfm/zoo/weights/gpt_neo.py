"""Checkpoints of GPT-Neo."""

from tfm.zoo import gpt_neo
from tfm.zoo.weights import gpt2
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.tops import GPT

NAMES: Names = {
  'embed': 'transformer.wte',
  'absolute': 'transformer.wpe',
  '*/mixer/q': 'transformer.h.*.attn.attention.q_proj',
  '*/mixer/k': 'transformer.h.*.attn.attention.k_proj',
  '*/mixer/v': 'transformer.h.*.attn.attention.v_proj',
  '*/mixer/o': 'transformer.h.*.attn.attention.out_proj',
  '*/ffn/up': 'transformer.h.*.mlp.c_fc',
  '*/ffn/down': 'transformer.h.*.mlp.c_proj',
  **{path: gpt2.NAMES[path] for path in ('*/mixer_norm', '*/ffn_norm', 'norm', 'head/head')},
}

FAMILY = Family(
  'GPTNeo',
  gpt_neo.read,
  gpt_neo.write,
  NAMES,
  'transformer.',
  tops=GPT,
  ignored=(r'\.attention\.(masked_)?bias$',),
)
