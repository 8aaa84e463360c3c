import dataclasses

import numpy as np
import pytest

from tfm.data.tokenizer import Byte
from tfm.tasks import Infill
from tfm.tasks.infill import NAMES, rearranged, text_runs

IDS = np.array([[100], [101], [102]], np.int32)


def _original(found, spm):
  """Return the text of a rearranged document."""
  prefix, suffix, middle = (np.flatnonzero(found == i)[0] for i in IDS[:, 0])
  assert prefix == 0
  if spm:
    assert suffix == 1
    # The cut between prefix and middle leaves no mark.
    return [*found[middle + 1 :], *found[suffix + 1 : middle]]
  return [*found[1:suffix], *found[middle + 1 :], *found[suffix + 1 : middle]]


@pytest.mark.parametrize('spm', [False, True])
def test_rearranged_documents_restore_their_text(spm):
  rng = np.random.default_rng(0)
  for size in (5, 6, 9, 40):
    for cuts in rng.random((50, 2)):
      text = np.arange(size, dtype=np.int32)
      found = rearranged(text, IDS, cuts, spm)
      assert len(found) == size
      assert _original(found, spm) == list(range(size - 3))


def test_runs_of_text_end_at_special_tokens_and_segments():
  segments = np.array([[1, 1, 1, 1, 1, 0], [1, 1, 2, 2, 2, 2]])
  special = np.array([[0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1]], bool)
  assert [tuple(run) for run in text_runs(segments, special)] == [
    (0, 0, 0, 2), (0, 1, 3, 5), (1, 0, 0, 2), (1, 1, 2, 5),
  ]  # fmt: skip


@pytest.fixture(scope='module', params=[False, True], ids=['isolate=False', 'isolate=True'])
def batches(request, data):
  """Raw sequences and their rearranged tokens, with the vocabulary."""
  task = Infill(rate=0.4, spm=0.25)
  data = dataclasses.replace(data, tokenizer=Byte(), length=120, isolate=request.param)
  corpus = data.open(task)
  before, after, segments = [], [], []
  for step in range(40):
    raw = corpus.batch('train', 0, step)
    batch = task.features(raw, corpus)
    before.append(raw['tokens'][:, :-1])
    after.append(batch['input_ids'])
    segments.append(raw['segments'][:, :-1])
    same = (raw['segments'][:, 1:] == raw['segments'][:, :-1]) & (raw['segments'][:, 1:] > 0)
    np.testing.assert_array_equal(batch['weights'] > 0, same)
    np.testing.assert_array_equal(batch['labels'][:, :-1], batch['input_ids'][:, 1:])
  return corpus.vocabulary, *map(np.concatenate, (before, after, segments))


def test_shares_of_infilled_documents_and_orders(batches):
  vocabulary, before, after, segments = batches
  prefix, suffix, middle = (vocabulary.special(name) for name in NAMES)
  total = changed = spm = 0
  # The last run of a sequence may continue in its label.
  runs = [r for r in text_runs(segments, vocabulary.is_special[before]) if r.stop < 120]
  for row, _, start, stop in runs:
    found = after[row, start:stop]
    if stop - start < 5 or not (found == prefix).any():
      np.testing.assert_array_equal(found, before[row, start:stop])
      total += stop - start >= 5
      continue
    total, changed, spm = total + 1, changed + 1, spm + (found[1] == suffix)
    assert [(found == i).sum() for i in (prefix, suffix, middle)] == [1, 1, 1]
    kept = np.sort(found[~np.isin(found, [prefix, suffix, middle])])
    np.testing.assert_array_equal(kept, np.sort(before[row, start : stop - 3]))
  assert abs(changed - 0.4 * total) < 4 * (total * 0.4 * 0.6) ** 0.5
  # PSM with an empty prefix looks like SPM, which is rare.
  assert abs(spm - 0.25 * changed) < 4 * (changed * 0.25 * 0.75) ** 0.5 + 0.06 * changed


def test_special_tokens_of_documents_keep_their_places(batches):
  vocabulary, before, after, _ = batches
  special = vocabulary.is_special[before]
  assert special.any()
  np.testing.assert_array_equal(after[special], before[special])


def test_infill_needs_a_causal_tower(model):
  assert not list(Infill().fits(model()))
  assert 'infill needs a causal model' in next(Infill().fits(model(causal=False)))
  assert 'needs a single tower' in next(Infill().fits(model(encoder=object())))


def test_impossible_shares_of_infilling_are_an_error():
  assert list(Infill(rate=1.5, spm=-0.5).check()) == [
    'rate: is 1.5. Expected a share from 0 to 1.',
    'spm: is -0.5. Expected a share from 0 to 1.',
  ]
