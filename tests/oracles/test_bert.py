"""The logits of BERT with a masked-LM head match transformers."""

import dataclasses

import numpy as np
import pytest

from tests.oracles import copying
from tfm.parts.absolute import Learned
from tfm.zoo import bert

pytestmark = pytest.mark.oracle
L, D, N, V, P = 2, 32, 4, 61, 16
SPEC = dataclasses.replace(
  bert.bert(L, D, N),
  embed=dataclasses.replace(bert.bert(L, D, N).embed, vocab=V),
  absolute=Learned(P),
)


def flat_of(t: copying.Theirs) -> copying.Flat:
  def block(i):
    at = f'bert.encoder.layer.{i}'
    found = t.merge('mixer/o', f'{at}.attention.output.dense')
    for n, name in zip('qkv', ('query', 'key', 'value'), strict=True):
      found |= t.heads(f'mixer/{n}', f'{at}.attention.self.{name}')
    found |= t.dense('ffn/up', f'{at}.intermediate.dense') | t.dense(
      'ffn/down', f'{at}.output.dense'
    )
    found |= t.norm('mixer_norm', f'{at}.attention.output.LayerNorm')
    return found | t.norm('ffn_norm', f'{at}.output.LayerNorm')

  table, head = 'bert.embeddings', 'cls.predictions'
  return {
    'embed/table': t[f'{table}.word_embeddings.weight'],
    'embed/types': t[f'{table}.token_type_embeddings.weight'],
    'absolute/table': t[f'{table}.position_embeddings.weight'],
    **t.norm('embed/norm', f'{table}.LayerNorm'),
    **copying.stacked('segment_0/block_0', range(L), block),
    **t.dense('head/transform', f'{head}.transform.dense'),
    **t.norm('head/norm', f'{head}.transform.LayerNorm'),
    'head/bias': t[f'{head}.bias'],
  }


def test_logits_match_with_types_and_padding():
  import torch
  import transformers

  config = transformers.BertConfig(
    vocab_size=V, hidden_size=D, num_hidden_layers=L, num_attention_heads=N,
    intermediate_size=4 * D,
    max_position_embeddings=P, attn_implementation='eager',
  )  # fmt: skip
  model = copying.randomized(transformers.BertForMaskedLM(config), 0.1)
  ids, mask, types = copying.tokens(2, 12), np.ones((2, 12), int), np.zeros((2, 12), int)
  mask[1, 8:], types[:, 5:] = 0, 1
  given = {'attention_mask': mask, 'token_type_ids': types}
  with torch.no_grad():
    theirs = model(
      torch.tensor(ids), **{k: torch.tensor(v) for k, v in given.items()}
    ).logits.numpy()
  params = copying.tree(SPEC, flat_of(copying.Theirs(model.state_dict())))
  ours = copying.logits(SPEC, params, input_ids=ids, **given)
  np.testing.assert_allclose(ours[mask > 0], theirs[mask > 0], atol=2e-5, rtol=2e-5)
