"""Properties of every task that reads text."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm.core.config import from_json, to_json
from tfm.data import Folders, Pairs
from tfm.data.tokenizer import Byte
from tfm.tasks import TABLE, Classify, ReplacedToken, Task, TextTask, mean

TEXT = sorted(name for name, cls in TABLE.items() if issubclass(cls, (TextTask, Classify)))


@pytest.fixture(scope='module', params=TEXT)
def opened(request, data, tmp_path_factory):
  task = TABLE[request.param]()
  if list(task.fits_data(data)):
    make = _paired if request.param == 'seq2seq' else _labelled
    data = make(tmp_path_factory.mktemp('examples'), data)
  return task, data.open(task), data


def _paired(folder, data):
  """Return pairs of numbers and their digits, with the length and batch size of `data`."""
  lines = [f'{i}\t{" ".join(str(i))}' for i in range(400)]
  (folder / 'pairs.tsv').write_text('\n'.join(lines))
  return Pairs(
    files=str(folder / 'pairs.tsv'),
    val_every=4,
    tokenizer=Byte(),
    length=data.length,
    batch=data.batch,
    cache=str(folder / 'cache'),
  )


def _labelled(folder, data):
  """Return text of three classes, with the length and batch size of `data`."""
  for label, words in (('a', 'one two '), ('b', 'three four '), ('c', 'five six ')):
    (folder / 'texts' / label).mkdir(parents=True)
    for i in range(40):
      (folder / 'texts' / label / f'{i}.txt').write_text(words * (5 + i))
  return Folders(
    root=str(folder / 'texts'),
    tokenizer=Byte(),
    length=data.length,
    batch=data.batch,
    cache=str(folder / 'cache'),
  )


def test_features_are_deterministic(opened):
  task, corpus, _ = opened
  a = task.features(corpus.batch('train', 0, 1), corpus)
  b = task.features(corpus.batch('train', 0, 1), corpus)
  other = task.features(corpus.batch('train', 0, 2), corpus)
  assert all(np.array_equal(a[k], b[k]) for k in a)
  assert not np.array_equal(a['labels'], other['labels'])


def test_features_of_a_slice_match_the_whole_batch(opened):
  task, corpus, _ = opened
  whole = task.features(corpus.batch('train', 0, 1), corpus)
  part = task.features(corpus.batch('train', 0, 1, slice(8, 16)), corpus)
  for name, value in whole.items():
    np.testing.assert_array_equal(value[8:16], part[name])


def test_evaluation_features_have_the_specs_of_training(opened):
  task, corpus, _ = opened
  describe = lambda batch: {k: (v.shape, v.dtype) for k, v in batch.items()}
  train = describe(task.features(corpus.batch('train', 0, 0), corpus))
  for raw in corpus.eval_batches('val', 32):
    assert describe(task.features(raw, corpus)) == train


def test_sequences_have_the_declared_lengths(opened):
  task, corpus, _ = opened
  batch = task.features(corpus.batch('train', 0, 0), corpus)
  names = ('input_ids', 'decoder_input_ids')
  assert tuple(batch[n].shape[1] for n in names if n in batch) == task.lengths(64)
  assert batch['input_ids'].shape == (32, 64)
  assert batch['labels'].dtype == batch['input_ids'].dtype == np.int32
  assert batch['weights'].dtype == np.float32
  assert batch['labels'].shape == batch['weights'].shape


def test_ids_are_inside_the_vocabulary(opened):
  task, corpus, _ = opened
  batch = task.features(corpus.batch('train', 0, 0), corpus)
  assert max(batch['input_ids'].max(), batch['labels'].max()) < corpus.vocab


def test_padding_examples_have_no_weight(opened):
  task, corpus, _ = opened
  *_, last = corpus.eval_batches('val', 64)
  empty = ~last['segments'].any(1)
  assert empty.any()
  assert not task.features(last, corpus)['weights'][empty].any()


def test_micro_batches_add_up_to_the_batch(opened):
  task, corpus, _ = opened
  if isinstance(task, ReplacedToken):
    pytest.skip('it draws samples, and adds a mean over each micro-batch')
  batch = jax.tree.map(jnp.asarray, task.features(corpus.batch('train', 0, 0), corpus))
  logits = jax.random.normal(jax.random.key(0), (*batch['labels'].shape, corpus.vocab))
  loss = jax.jit(
    lambda logits, batch: task.loss(lambda **inputs: {'logits': logits}, batch, jax.random.key(0))
  )
  whole = loss(logits, batch)
  halves = [
    loss(logits[s], jax.tree.map(lambda x, s=s: x[s], batch)) for s in (slice(0, 16), slice(16, 32))
  ]
  jax.tree.map(lambda w, a, b: np.testing.assert_allclose(w, a + b, rtol=1e-5), whole, *halves)
  assert whole['loss'].weight == batch['weights'].sum()


@pytest.mark.parametrize('isolate', [False, True])
def test_specs_describe_the_features_without_data(opened, isolate):
  task, _, data = opened
  data = dataclasses.replace(data, isolate=isolate)
  if list(task.fits_data(data)):
    pytest.skip('the task does not isolate documents')
  corpus = data.open(task)
  batch = task.features(corpus.batch('train', 0, 0), corpus)
  closed = dataclasses.replace(
    data, cache='nowhere', **dict.fromkeys({'files', 'root'} & vars(data).keys(), 'nowhere')
  )
  shapes, letters = task.shapes(None, closed), task.letters(None, closed)
  assert {n: (a.shape, a.dtype) for n, a in batch.items()} == {
    n: (s.shape, s.dtype) for n, s in shapes.items()
  }
  assert {n: a.ndim for n, a in batch.items()} == {n: len(axes) for n, axes in letters.items()}


def test_config_round_trips_through_json(opened):
  task = opened[0]
  assert from_json(Task, to_json(task)) == task


def test_mean_without_weight_and_its_gradient_are_zero():
  task = TABLE['causal_lm']()
  batch = {'labels': jnp.zeros((1, 2), jnp.int32), 'weights': jnp.zeros((1, 2))}

  def loss(logits):
    return mean(*task.loss(lambda **inputs: {'logits': logits}, batch, None)['loss'])

  value, grad = jax.value_and_grad(loss)(jnp.ones((1, 2, 3)))
  assert value == 0
  assert not grad.any()


def test_non_finite_logits_without_weight_are_ignored():
  batch = {'labels': jnp.zeros((1, 2), jnp.int32), 'weights': jnp.array([[1.0, 0.0]])}
  logits = jnp.zeros((1, 2, 3)).at[0, 1].set(jnp.inf)
  ratio = TABLE['causal_lm']().loss(lambda **inputs: {'logits': logits}, batch, None)['loss']
  assert mean(*ratio) == pytest.approx(np.log(3))


def test_impossible_smoothing_is_an_error():
  assert list(TABLE['causal_lm'](label_smoothing=1.0, z_loss=-1.0).check()) == [
    'label_smoothing: is 1.0. Expected 0 or more, below 1.',
    'z_loss: is -1.0. Expected 0 or more.',
  ]
