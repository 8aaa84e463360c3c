import dataclasses

import numpy as np

from tfm import zoo
from tfm.model.spec import Block, Model, Segment
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn import Moe
from tfm.parts.head.classify import Classify
from tfm.parts.mask import Mask
from tfm.parts.mixer import Attention
from tfm.tasks import PermutationLM


def _batch(data, task, step=0):
  corpus = data.open(task)
  raw = corpus.batch('train', 0, step)
  return raw, task.features(raw, corpus), corpus.vocabulary.is_special[raw['tokens']]


def test_last_sixth_of_the_order_is_predicted(data):
  raw, batch, special = _batch(data, PermutationLM())
  assert batch['labels'].shape == (32, 64 // 6)
  np.testing.assert_array_equal(np.sort(batch['order_ids'], 1), np.tile(np.arange(64), (32, 1)))
  for row in range(32):
    at = batch['target_positions'][row]
    np.testing.assert_array_equal(
      at, np.flatnonzero((batch['order_ids'][row] >= 54) & ~special[row])
    )
    np.testing.assert_array_equal(batch['labels'][row], raw['tokens'][row, at])
  assert batch['weights'].all()


def test_special_tokens_come_first_and_are_never_targets(data):
  _, batch, special = _batch(data, PermutationLM())
  assert special.any()
  for row in range(32):
    assert sorted(batch['order_ids'][row, special[row]]) == [*range(special[row].sum())]


def test_targets_are_uniform_and_redrawn_each_epoch(data):
  task = PermutationLM()
  corpus = data.open(task)
  targets = [
    task.features(corpus.batch('train', 0, s), corpus)['target_positions'] for s in range(60)
  ]
  count = np.bincount(np.concatenate(targets).ravel(), minlength=64)
  n = 60 * 32
  assert np.all(np.abs(count - n * 10 / 64) < 5 * (n * 10 / 64) ** 0.5)
  raw = corpus.batch('train', 0, 0)
  again = task.features({**raw, 'key': corpus.batch('train', 0, 1000)['key']}, corpus)
  assert (again['target_positions'] != targets[0]).any()


def test_unordered_context_tokens_share_one_rank(data):
  _, strict, _ = _batch(data, PermutationLM())
  _, batch, _ = _batch(data, PermutationLM(ordered=False))
  np.testing.assert_array_equal(batch['target_positions'], strict['target_positions'])
  for row in range(32):
    at = batch['target_positions'][row]
    np.testing.assert_array_equal(batch['order_ids'][row, at], strict['order_ids'][row, at] + 1)
    assert not np.delete(batch['order_ids'][row], at).any()


def test_every_isolated_document_has_its_own_order_and_targets(data):
  raw, batch, special = _batch(dataclasses.replace(data, isolate=True), PermutationLM(one_in=4))
  short = 0
  for row in range(32):
    at = batch['target_positions'][row][batch['weights'][row] > 0]
    assert (batch['target_positions'][row][batch['weights'][row] == 0] == -1).all()
    for document in range(1, raw['segments'][row].max() + 1):
      mine = raw['segments'][row] == document
      n, ordinary = mine.sum(), (mine & ~special[row]).sum()
      assert sorted(batch['order_ids'][row, mine]) == [*range(n)]
      assert mine[at].sum() == min(n // 4, ordinary)
      short += n < 4
  assert short or batch['segment_ids'].max() > 1


def test_permutation_lm_needs_a_query_and_hiding_masks():
  attention, query = Attention(4, mask=Mask()), Tokens(64, query=True)
  fits = lambda block, embed=Tokens(64): list(
    PermutationLM().fits(Model(embed, 32, (Segment((block,)),)))
  )
  assert not fits(Block(attention), embed=query)
  assert not fits(Block(Attention(4)), embed=query)
  assert 'Expected model.embed.query=true' in fits(Block(attention))[0]
  (leak,) = fits(Block(attention, Moe(4, capacity=1.0)), embed=query)
  assert 'needs attention masks that hide its labels' in leak
  assert not list(PermutationLM().fits(zoo.get('xlnet-base')))
  assert 'needs a single tower' in next(PermutationLM().fits(zoo.get('t5-small')))
  two_heads = zoo.get('xlnet-base').with_heads(classify=Classify())
  assert 'Expected model.mtp=none and no head classify' in next(PermutationLM().fits(two_heads))


def test_impossible_shares_and_lengths_are_an_error(data):
  assert list(PermutationLM(one_in=1).check()) == [
    'one_in: is 1, but the first token of an order cannot be predicted. Expected 2 or more.'
  ]
  (short,) = PermutationLM().fits_data(dataclasses.replace(data, length=5))
  assert short == 'data.length: is 5, but one token in 6 is predicted. Expected 6 or more.'
