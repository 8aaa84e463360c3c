"""Checkpoints of DBRX: fused q, k and v; all experts of a layer concatenated."""

from tfm.zoo import dbrx
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import Fused, Stacked

_LAYER = 'transformer.blocks.*'
NAMES: Names = {
  'embed': 'transformer.wte',
  ('*/mixer/q', '*/mixer/k', '*/mixer/v'): Fused(f'{_LAYER}.norm_attn_norm.attn.Wqkv'),
  '*/mixer/o': f'{_LAYER}.norm_attn_norm.attn.out_proj',
  '*/mixer_norm': f'{_LAYER}.norm_attn_norm.norm_1',
  '*/ffn_norm': f'{_LAYER}.norm_attn_norm.norm_2',
  '*/ffn/router/score': f'{_LAYER}.ffn.router.layer',
  '*/ffn/expert/gate': Stacked(f'{_LAYER}.ffn.experts.mlp.w1', flat=True),
  '*/ffn/expert/up': Stacked(f'{_LAYER}.ffn.experts.mlp.v1', flat=True),
  '*/ffn/expert/down': Stacked(f'{_LAYER}.ffn.experts.mlp.w2', conv=True, flat=True),
  'norm': 'transformer.norm_f',
  'head/head': 'lm_head',
}

FAMILY = Family('Dbrx', dbrx.read, dbrx.write, NAMES, 'transformer.')
