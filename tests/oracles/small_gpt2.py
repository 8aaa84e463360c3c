"""A small GPT-2 and its parameters from transformers' state dict."""

import dataclasses

import numpy as np

from tests.oracles import copying
from tfm.parts.absolute import Learned
from tfm.parts.embed import Tokens
from tfm.zoo import gpt2

L, D, N, V, P = 2, 32, 4, 61, 16

SPEC = dataclasses.replace(gpt2.gpt2(L, D, N), embed=Tokens(V, dropout=0.1), absolute=Learned(P))


def flat_of(theirs: copying.Theirs) -> copying.Flat:
  def conv(ours, name):
    # Conv1D stores [in, out].
    return {f'{ours}/kernel': theirs[f'{name}.weight'], f'{ours}/bias': theirs[f'{name}.bias']}

  def block(i):
    at, found = f'transformer.h.{i}', {}
    for leaf, value in conv('x', f'{at}.attn.c_attn').items():
      parts = np.split(value, 3, -1)
      heads = [p.reshape(*p.shape[:-1], N, D // N) for p in parts]
      found |= {f'mixer/{n}/{leaf[2:]}': h for n, h in zip('qkv', heads, strict=True)}
    out = conv('mixer/o', f'{at}.attn.c_proj')
    out['mixer/o/kernel'] = out['mixer/o/kernel'].reshape(N, D // N, D)
    ffn = conv('ffn/up', f'{at}.mlp.c_fc') | conv('ffn/down', f'{at}.mlp.c_proj')
    norms = theirs.norm('mixer_norm', f'{at}.ln_1') | theirs.norm('ffn_norm', f'{at}.ln_2')
    return found | out | ffn | norms

  return {
    'embed/table': theirs['transformer.wte.weight'],
    'absolute/table': theirs['transformer.wpe.weight'],
    **copying.stacked('segment_0/block_0', range(L), block),
    **theirs.norm('norm', 'transformer.ln_f'),
  }
