"""Checkpoints of MPT."""

from tfm.zoo import mpt
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import Fused
from tfm.zoo.weights.tops import GPT

NAMES: Names = {
  'embed': 'transformer.wte',
  ('*/mixer/q', '*/mixer/k', '*/mixer/v'): Fused('transformer.blocks.*.attn.Wqkv'),
  '*/mixer/o': 'transformer.blocks.*.attn.out_proj',
  '*/ffn/up': 'transformer.blocks.*.ffn.up_proj',
  '*/ffn/down': 'transformer.blocks.*.ffn.down_proj',
  '*/mixer_norm': 'transformer.blocks.*.norm_1',
  '*/ffn_norm': 'transformer.blocks.*.norm_2',
  'norm': 'transformer.norm_f',
  'head/head': 'lm_head',
}

FAMILY = Family('Mpt', mpt.read, mpt.write, NAMES, 'transformer.', tops=GPT)
