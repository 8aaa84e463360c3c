"""Checkpoints of GPT-J."""

from tfm.zoo import gptj
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import Whole
from tfm.zoo.weights.tops import GPT

NAMES: Names = {
  'embed': 'transformer.wte',
  '*/mixer/q': 'transformer.h.*.attn.q_proj',
  '*/mixer/k': 'transformer.h.*.attn.k_proj',
  '*/mixer/v': 'transformer.h.*.attn.v_proj',
  '*/mixer/o': 'transformer.h.*.attn.out_proj',
  '*/ffn/up': 'transformer.h.*.mlp.fc_in',
  '*/ffn/down': 'transformer.h.*.mlp.fc_out',
  '*/norm': 'transformer.h.*.ln_1',
  'norm': 'transformer.ln_f',
  'head/head': 'lm_head',
  'head/bias': Whole('lm_head.bias'),
}
TOPS = {name: GPT[name] for name in ('ForSequenceClassification', 'ForQuestionAnswering')}
IGNORED = (r'\.attn\.((masked_)?bias|causal_mask|embed_positions)$',)

FAMILY = Family('GPTJ', gptj.read, gptj.write, NAMES, 'transformer.', tops=TOPS, ignored=IGNORED)
