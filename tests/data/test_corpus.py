import dataclasses

import numpy as np
import pytest

from tfm.core.errors import UserError


@pytest.fixture(scope='module', params=[False, True], ids=['stream', 'isolated'])
def corpus(request, data):
  return dataclasses.replace(data, isolate=request.param).corpus(17, overlap=1)


def _same(a, b):
  return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def test_batch_is_a_function_of_seed_and_step(corpus, data):
  again = dataclasses.replace(data, isolate=corpus.isolate).corpus(17, overlap=1)
  for step in (0, 5, 10_000):
    assert _same(corpus.batch('train', 1, step), again.batch('train', 1, step))
  assert not _same(corpus.batch('train', 1, 0), corpus.batch('train', 1, 1))
  assert not _same(corpus.batch('train', 1, 0), corpus.batch('train', 2, 0))


def test_slices_of_hosts_form_the_global_batch(corpus):
  whole = corpus.batch('train', 0, 3)
  for hosts in (2, 8):
    n = 8 // hosts
    shares = [corpus.batch('train', 0, 3, slice(h * n, (h + 1) * n)) for h in range(hosts)]
    assert _same(whole, {k: np.concatenate([s[k] for s in shares]) for k in whole})


def test_epochs_are_different_permutations(corpus):
  n = corpus.size('train')
  layout = corpus._layout('train')
  seen = []
  original = type(layout).sequences
  for epoch in range(2):
    order = []
    for step in range(epoch * n // 8, -(-(epoch + 1) * n // 8)):
      raw = corpus.batch('train', 0, step)
      order += raw['tokens'][
        (raw['sample'] >= epoch * n) & (raw['sample'] < (epoch + 1) * n)
      ].tolist()
    seen.append(order)
    assert len(order) == n
  at_zero = original(layout, np.arange(n), np.zeros(n, np.int64)).tokens.tolist()
  assert sorted(seen[0]) == sorted(at_zero)
  assert seen[0] != at_zero
  assert seen[0] != seen[1]


def test_batch_may_span_several_epochs(data, tmp_path):
  (tmp_path / 'a.txt').write_text('abcdefghij' * 3)
  tiny = dataclasses.replace(data, files=str(tmp_path / 'a.txt'), cache=str(tmp_path))
  corpus = tiny.corpus(9, overlap=1)
  assert corpus.size('train') < corpus.batch_size
  assert corpus.batch('train', 0, 0)['segments'].all()


def test_evaluation_predicts_every_token_once(corpus):
  def predicted(batch):
    out = []
    for raw in corpus.eval_batches('val', batch):
      segments = raw['segments']
      assert segments.shape == (batch, 17)
      same = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] > 0)
      out += raw['tokens'][:, 1:][same].tolist()
    return sorted(out)

  tokens = corpus.store.splits['val'].tokens
  assert predicted(8) == predicted(5) == sorted(np.asarray(tokens[1:]).tolist())


def test_evaluation_slices_of_hosts_cover_the_split(corpus):
  for whole, a, b in zip(
    corpus.eval_batches('val', 8),
    corpus.eval_batches('val', 8, slice(0, 4)),
    corpus.eval_batches('val', 8, slice(4, 8)),
    strict=True,
  ):
    assert _same(whole, {k: np.concatenate([a[k], b[k]]) for k in whole})


def test_last_evaluation_batch_is_padded(corpus):
  *_, last = corpus.eval_batches('val', 64)
  empty = last['sample'] >= corpus._layout('val').eval_size
  assert empty.any()
  assert not last['segments'][empty].any()
  assert not last['tokens'][empty].any()


def test_bytes_are_counted_where_labels_have_weight(corpus):
  labels = np.array([[0, 1, 2]])
  assert corpus.bytes_of(labels, np.array([[1.0, 0.0, 1.0]])) == 2


def test_length_beyond_the_text_is_an_error(data):
  with pytest.raises(
    UserError, match=r'data.length: a sequence needs 1000001 tokens, but the train split has only'
  ):
    data.corpus(1_000_001, overlap=1).batch('train', 0, 0)


def test_unknown_split_is_an_error(corpus):
  with pytest.raises(UserError, match=r"unknown split 'vall'\. Did you mean 'val'"):
    corpus.batch('vall', 0, 0)


def test_packing_of_documents_is_dense(data):
  corpus = dataclasses.replace(data, isolate=True).corpus(257, overlap=1)
  filled = [corpus.batch('train', 0, s)['segments'] > 0 for s in range(corpus.size('train') // 8)]
  assert np.mean(filled) > 0.95


def test_strided_evaluation_covers_the_split(corpus):
  whole, some = list(corpus.eval_batches('val', 1)), list(corpus.eval_batches('val', 1, every=3))
  assert len(whole) > 3
  assert len(some) == -(-len(whole) // 3)
  assert all(_same(a, b) for a, b in zip(whole[::3], some, strict=True))
