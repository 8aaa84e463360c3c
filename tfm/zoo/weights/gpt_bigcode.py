"""Checkpoints of SantaCoder and StarCoder: GPT-2's names, with kernels as `[out, in]`.

q, k and v are fused per key/value head.
"""

from tfm.zoo import gpt_bigcode
from tfm.zoo.weights import gpt2
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import FusedHeads
from tfm.zoo.weights.tops import GPT

NAMES: Names = {
  **gpt2.NAMES,
  ('*/mixer/q', '*/mixer/k', '*/mixer/v'): FusedHeads('transformer.h.*.attn.c_attn'),
  '*/mixer/o': 'transformer.h.*.attn.c_proj',
  '*/ffn/up': 'transformer.h.*.mlp.c_fc',
  '*/ffn/down': 'transformer.h.*.mlp.c_proj',
}

FAMILY = Family(
  'GPTBigCode', gpt_bigcode.read, gpt_bigcode.write, NAMES, 'transformer.',
  tops={name: GPT[name] for name in ('ForSequenceClassification', 'ForTokenClassification')},
  ignored=(r'\.attn\.bias$',),
)  # fmt: skip
