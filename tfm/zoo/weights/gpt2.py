"""Checkpoints of GPT-2: kernels as `[in, out]`, with fused q, k and v."""

from tfm.zoo import gpt2
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import Conv, Fused
from tfm.zoo.weights.tops import GPT

NAMES: Names = {
  'embed': 'transformer.wte',
  'absolute': 'transformer.wpe',
  ('*/mixer/q', '*/mixer/k', '*/mixer/v'): Fused('transformer.h.*.attn.c_attn', conv=True),
  '*/mixer/o': Conv('transformer.h.*.attn.c_proj'),
  '*/ffn/up': Conv('transformer.h.*.mlp.c_fc'),
  '*/ffn/down': Conv('transformer.h.*.mlp.c_proj'),
  '*/mixer_norm': 'transformer.h.*.ln_1',
  '*/ffn_norm': 'transformer.h.*.ln_2',
  'norm': 'transformer.ln_f',
  'head/head': 'lm_head',
}

FAMILY = Family(
  'GPT2', gpt2.read, gpt2.write, NAMES, 'transformer.', 'LMHeadModel', GPT,
  ignored=(r'\.attn\.(masked_)?bias$',),
)  # fmt: skip
