"""What holds for every row of the table of tasks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm.core.config import from_json, to_json
from tfm.data import Folders
from tfm.data.tokenizer import Byte
from tfm.tasks import TABLE, Task, mean


@pytest.fixture(scope='module', params=sorted(TABLE))
def opened(request, data, tmp_path_factory):
  task = TABLE[request.param]()
  return task, task.open(_labelled(tmp_path_factory.mktemp('classes'), data) if list(task.fits_data(data)) else data)


def _labelled(folder, data):
  """Text of three classes, as long and as many rows at a time as `data`."""
  for label, words in (('a', 'one two '), ('b', 'three four '), ('c', 'five six ')):
    (folder / 'texts' / label).mkdir(parents=True)
    for i in range(40):
      (folder / 'texts' / label / f'{i}.txt').write_text(words * (5 + i))
  return Folders(
    root=str(folder / 'texts'), tokenizer=Byte(), length=data.length, batch=data.batch, cache=str(folder / 'cache')
  )


def test_features_are_a_function_of_the_rows(opened):
  task, corpus = opened
  a = task.features(corpus.batch('train', 0, 1), corpus.tokenizer)
  b = task.features(corpus.batch('train', 0, 1), corpus.tokenizer)
  other = task.features(corpus.batch('train', 0, 2), corpus.tokenizer)
  assert all(np.array_equal(a[k], b[k]) for k in a)
  assert not np.array_equal(a['labels'], other['labels'])


def test_a_host_makes_its_rows_as_any_other_would(opened):
  task, corpus = opened
  whole = task.features(corpus.batch('train', 0, 1), corpus.tokenizer)
  part = task.features(corpus.batch('train', 0, 1, slice(8, 16)), corpus.tokenizer)
  for name, value in whole.items():
    np.testing.assert_array_equal(value[8:16], part[name])


def test_evaluation_has_the_keys_shapes_and_types_of_training(opened):
  task, corpus = opened
  describe = lambda batch: {k: (v.shape, v.dtype) for k, v in batch.items()}
  train = describe(task.features(corpus.batch('train', 0, 0), corpus.tokenizer))
  for raw in corpus.eval_batches('val', 32):
    assert describe(task.features(raw, corpus.tokenizer)) == train


def test_rows_have_the_lengths_the_task_says(opened):
  task, corpus = opened
  batch = task.features(corpus.batch('train', 0, 0), corpus.tokenizer)
  names = ('input_ids', 'decoder_input_ids')
  assert tuple(batch[n].shape[1] for n in names if n in batch) == task.lengths(64)
  assert batch['input_ids'].shape == (32, 64)
  assert batch['labels'].dtype == batch['input_ids'].dtype == np.int32
  assert batch['weights'].dtype == np.float32
  assert batch['labels'].shape == batch['weights'].shape


def test_ids_are_inside_the_vocabulary(opened):
  task, corpus = opened
  batch = task.features(corpus.batch('train', 0, 0), corpus.tokenizer)
  assert max(batch['input_ids'].max(), batch['labels'].max()) < corpus.vocab


def test_rows_of_padding_have_no_weight(opened):
  task, corpus = opened
  *_, last = corpus.eval_batches('val', 64)
  empty = ~last['segments'].any(1)
  assert empty.any()
  assert not task.features(last, corpus.tokenizer)['weights'][empty].any()


def test_micro_batches_add_up_to_the_batch(opened):
  task, corpus = opened
  batch = jax.tree.map(jnp.asarray, task.features(corpus.batch('train', 0, 0), corpus.tokenizer))
  logits = jax.random.normal(jax.random.key(0), (*batch['labels'].shape, corpus.vocab))
  loss = jax.jit(lambda logits, batch: task.loss({'logits': logits}, batch))
  whole = loss(logits, batch)
  halves = [loss(logits[s], jax.tree.map(lambda x, s=s: x[s], batch)) for s in (slice(0, 16), slice(16, 32))]
  jax.tree.map(lambda w, a, b: np.testing.assert_allclose(w, a + b, rtol=1e-5), whole, *halves)
  assert whole[1] == batch['weights'].sum()


def test_a_config_of_it_comes_back_from_json(opened):
  task, _ = opened
  assert from_json(Task, to_json(task)) == task


def test_the_mean_of_nothing_is_zero_and_so_is_its_gradient():
  task = TABLE['causal_lm']()
  batch = {'labels': jnp.zeros((1, 2), jnp.int32), 'weights': jnp.zeros((1, 2))}

  def loss(logits):
    total, weight, _ = task.loss({'logits': logits}, batch)
    return mean(total, weight)

  value, grad = jax.value_and_grad(loss)(jnp.ones((1, 2, 3)))
  assert value == 0
  assert not grad.any()


def test_logits_that_are_not_finite_where_nothing_is_weighted_do_no_harm():
  batch = {'labels': jnp.zeros((1, 2), jnp.int32), 'weights': jnp.array([[1.0, 0.0]])}
  logits = jnp.zeros((1, 2, 3)).at[0, 1].set(jnp.inf)
  total, weight, _ = TABLE['causal_lm']().loss({'logits': logits}, batch)
  assert mean(total, weight) == pytest.approx(np.log(3))


def test_impossible_smoothing_is_an_error():
  assert list(TABLE['causal_lm'](label_smoothing=1.0, z_loss=-1.0).check()) == [
    'label_smoothing: is 1.0. A number from 0 to below 1 was wanted.',
    'z_loss: is -1.0. 0 or more was wanted.',
  ]
