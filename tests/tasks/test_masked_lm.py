import dataclasses

import numpy as np
import pytest

from tfm.tasks import MaskedLM


@pytest.fixture(scope='module')
def corpus(data):
  return data.open(MaskedLM())


@pytest.fixture(scope='module')
def batches(corpus):
  task = MaskedLM()
  made = [task.features(corpus.batch('train', 0, step), corpus) for step in range(60)]
  return {k: np.concatenate([b[k] for b in made]) for k in made[0]}


def _within_four_errors(hits, n, rate):
  return abs(hits - n * rate) < 4 * (n * rate * (1 - rate)) ** 0.5


def test_fifteen_percent_of_tokens_are_chosen(corpus, batches):
  ordinary = ~corpus.vocabulary.is_special[batches['labels']]
  assert _within_four_errors(batches['weights'].sum(), ordinary.sum(), 0.15)


def test_chosen_tokens_are_masked_random_or_kept(corpus, batches):
  chosen = batches['weights'] > 0
  inputs, labels = batches['input_ids'][chosen], batches['labels'][chosen]
  n, V = chosen.sum(), corpus.vocabulary.base
  assert _within_four_errors((inputs == corpus.vocabulary.mask).sum(), n, 0.8)
  assert _within_four_errors((inputs == labels).sum(), n, 0.1 + 0.1 / V)
  assert _within_four_errors(
    ((inputs != labels) & (inputs != corpus.vocabulary.mask)).sum(), n, 0.1 * (V - 1) / V
  )


def test_specials_are_neither_chosen_nor_drawn(corpus, batches):
  special = corpus.vocabulary.is_special
  assert special[batches['labels']].any()
  assert not batches['weights'][special[batches['labels']]].any()
  unmasked = batches['input_ids'] != corpus.vocabulary.mask
  assert not special[batches['input_ids'][(batches['weights'] > 0) & unmasked]].any()


def test_other_tokens_are_unchanged(batches):
  rest = batches['weights'] == 0
  np.testing.assert_array_equal(batches['input_ids'][rest], batches['labels'][rest])


def test_masks_are_redrawn_each_epoch(corpus):
  task = MaskedLM()
  raw = corpus.batch('train', 0, 0)
  again = {**raw, 'key': corpus.batch('train', 0, 1000)['key']}
  a, b = (task.features(r, corpus)['weights'] for r in (raw, again))
  assert (a != b).any()


def test_isolated_documents_have_their_own_positions(data):
  task = MaskedLM()
  corpus = dataclasses.replace(data, isolate=True).open(task)
  batch = task.features(corpus.batch('train', 0, 0), corpus)
  assert {'segment_ids', 'position_ids'} <= set(batch)


def test_masked_lm_needs_a_single_tower(model):
  assert not list(MaskedLM().fits(model(causal=False)))
  assert 'masked_lm needs a single tower' in next(MaskedLM().fits(model(encoder=object())))


def test_impossible_shares_are_an_error():
  assert list(MaskedLM(rate=0.0, masked=0.9, random=0.2).check()) == [
    'rate: is 0.0. Expected a share above 0, at most 1.',
    'masked, random: are 0.9 and 0.2. Expected two shares that add up to at most 1.',
  ]
