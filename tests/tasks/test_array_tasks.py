"""Tasks on arrays, compared with numpy and PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tasks.dataset import MADE, Source
from tfm.data import Text
from tfm.tasks import Classify, Contrastive, Ctc, Regress
from tfm.tasks.ctc import edit_distance, greedy, needed_frames

KEY = jax.random.key(0)


def constant(**outputs):
  """A forward function with fixed outputs."""
  return lambda **inputs: {name: jnp.asarray(value) for name, value in outputs.items()}


def value(ratio):
  return float(ratio.sum / ratio.weight)


@pytest.fixture
def rng():
  return np.random.default_rng(0)


@pytest.fixture
def images(rng):
  pixels = rng.normal(size=(12, 3, 4, 4)).astype(np.float32)
  labels = (np.arange(12) % 3).astype(np.int32)
  MADE['images'] = (
    {'pixel_values': pixels, 'labels': labels},
    {'pixel_values': 'BCHW', 'labels': 'B'},
    ('a', 'b', 'c'),
  )
  return Source(batch=4, name='images')


def test_array_features_keep_inputs_and_mark_padding(images):
  task, dataset = Classify(), images.open(Classify())
  assert not list(task.fits_data(images))
  train = task.features(dataset.batch('train', 0, 0), dataset)
  assert set(train) == {'pixel_values', 'labels', 'weights'}
  assert train['weights'].tolist() == [1, 1, 1, 1]
  (last,) = dataset.eval_batches('val', 4)
  assert task.features(last, dataset)['weights'].tolist() == [1, 1, 1, 0]
  assert {n: s.shape for n, s in task.shapes(None, images).items()} == {
    n: a.shape for n, a in train.items()
  }
  assert task.letters(None, images) == {'pixel_values': 'BCHW', 'labels': 'B', 'weights': 'B'}
  assert task.per_step(images) == ('examples', 4)


def test_tasks_refuse_data_without_their_arrays(images):
  text = Text(files='x')
  for task in (Ctc(), Contrastive()):
    assert 'cannot use text' in next(task.fits_data(text))
  assert 'regress needs a number for each text' in next(Regress().fits_data(text))
  assert 'needs input_ids, but the data has pixel_values, labels' in next(
    Contrastive().fits_data(images)
  )
  assert 'needs labels' in next(Classify().fits_data(text))


def test_images_are_shown_with_predicted_and_true_class(images):
  task, dataset = Classify(), images.open(Classify())
  (raw,) = dataset.eval_batches('val', 4)
  logits = np.eye(3)[[raw['labels'][0], (raw['labels'][1] + 1) % 3, raw['labels'][2], 0]]
  found = task.picture(dataset, raw, {'logits': logits})
  assert [caption for _, caption in found] == ['a', 'c (is b)', 'c']
  assert all(
    image.shape == (4, 4, 3) and image.min() == 0 and image.max() == 1 for image, _ in found
  )


@pytest.mark.oracle
@pytest.mark.parametrize('smoothing', [0.0, 0.1])
@pytest.mark.parametrize('soft', [False, True])
def test_classification_matches_torch(rng, smoothing, soft):
  import torch

  logits = rng.normal(size=(6, 5)).astype(np.float32)
  labels = rng.integers(0, 5, 6).astype(np.int32)
  if soft:
    labels = (
      0.3 * np.eye(5, dtype=np.float32)[labels] + 0.7 * np.eye(5, dtype=np.float32)[labels[::-1]]
    )
  batch = {
    'pixel_values': jnp.zeros((6, 1)),
    'labels': jnp.asarray(labels),
    'weights': jnp.array([1.0] * 5 + [0.0]),
  }
  target = torch.tensor(labels) if soft else torch.tensor(labels).long()
  expect = lambda e: float(
    torch.nn.functional.cross_entropy(torch.tensor(logits)[:5], target[:5], label_smoothing=e)
  )
  task = Classify(label_smoothing=smoothing)
  found = task.loss(constant(logits=logits), batch, KEY)
  assert value(found['loss']) == pytest.approx(expect(smoothing), rel=1e-5)
  assert value(found['loss_nats']) == pytest.approx(expect(0.0), rel=1e-5)
  top = labels.argmax(-1) if soft else labels
  assert value(found['accuracy']) == pytest.approx((logits.argmax(-1) == top)[:5].mean())
  sums = {
    name: (float(r.sum), float(r.weight))
    for name, r in task.loss(constant(logits=logits), batch, None).items()
  }
  assert set(task.score(sums)) == {'loss_nats', 'accuracy'}


@pytest.mark.parametrize('shape', [(4,), (4, 3), (4, 5, 2)], ids=str)
def test_regression_is_the_mean_over_numbers_with_weight(rng, shape):
  found, labels = rng.normal(size=(2, *shape)).astype(np.float32)
  batch = {'labels': jnp.asarray(labels), 'weights': jnp.array([1.0, 1.0, 1.0, 0.0])}
  output = found[..., None] if shape == (4,) else found
  ratios = Regress().loss(constant(logits=output), batch, KEY)
  error = (found - labels)[:3]
  assert value(ratios['loss']) == pytest.approx(np.square(error).mean(), rel=1e-5)
  assert value(ratios['mean_absolute_error']) == pytest.approx(np.abs(error).mean(), rel=1e-5)


def test_regression_uses_weights_per_step_and_a_named_output(rng):
  found, labels = rng.normal(size=(2, 2, 3, 4)).astype(np.float32)
  weights = np.array([[1, 1, 0], [1, 0, 0]], np.float32)
  ratios = Regress(output='actions').loss(
    constant(actions=found), {'labels': labels, 'weights': weights}, KEY
  )
  assert value(ratios['loss']) == pytest.approx(
    np.square(found - labels)[weights > 0].mean(), rel=1e-5
  )


@pytest.mark.oracle
@pytest.mark.parametrize('blank', [0, 2])
def test_ctc_matches_torch(rng, blank):
  import torch

  B, T, V, L = 4, 12, 6, 5
  logits = rng.normal(size=(B, T, V)).astype(np.float32)
  tokens = np.array([v for v in range(V) if v != blank])
  sizes, frames = np.array([5, 3, 1, 4]), np.array([12, 9, 7, 10], np.int32)
  labels = np.where(
    np.arange(L) < sizes[:, None], tokens[rng.integers(0, V - 1, (B, L))], -1
  ).astype(np.int32)
  log_p = torch.log_softmax(torch.tensor(logits).double(), -1).transpose(0, 1)
  flat = torch.tensor(labels[labels >= 0]).long()
  args = log_p, flat, torch.tensor(frames).long(), torch.tensor(sizes)
  nats = torch.nn.functional.ctc_loss(*args, blank=blank, reduction='none').numpy()
  weights = np.array([1, 1, 1, 0], np.float32)
  batch = {
    'labels': jnp.asarray(labels),
    'frames': jnp.asarray(frames),
    'weights': jnp.asarray(weights),
  }
  ratios = Ctc(blank).loss(constant(logits=logits), batch, KEY)
  assert set(ratios) == {'loss', 'skipped'}
  np.testing.assert_allclose(ratios['loss'].sum, (nats * weights).sum(), rtol=1e-4)
  assert ratios['loss'].weight == (sizes * weights).sum()
  assert ratios['skipped'].sum == 0


def test_ctc_skips_labels_that_cannot_be_aligned():
  labels = jnp.array([[1, 1, 2], [1, 2, -1], [1, 2, 1]])
  assert needed_frames(labels).tolist() == [4, 2, 3]
  batch = {'labels': labels, 'weights': jnp.ones(3)}
  loss = lambda logits: Ctc().loss(constant(logits=logits), batch, KEY)
  logits = jnp.zeros((3, 3, 4))
  ratios = loss(logits)
  assert value(ratios['skipped']) == pytest.approx(1 / 3)
  assert ratios['loss'].weight == 5
  grad = jax.grad(lambda logits: loss(logits)['loss'].sum)(logits)
  assert jnp.isfinite(grad).all()
  assert not grad[0].any()
  assert grad[1].any()


def test_greedy_transcription_merges_repeats_and_drops_blanks():
  top = np.array([[0, 1, 1, 0, 1, 2, 2], [3, 3, 0, 0, 3, 1, 1]])
  found = greedy(jnp.asarray(np.eye(4)[top]), jnp.array([7, 5]), 0)
  assert [row[row >= 0].tolist() for row in np.asarray(found)] == [[1, 1, 2], [3, 3]]


def levenshtein(a, b):
  cost = np.zeros((len(a) + 1, len(b) + 1), int)
  cost[:, 0], cost[0] = np.arange(len(a) + 1), np.arange(len(b) + 1)
  for i, x in enumerate(a, 1):
    for j, y in enumerate(b, 1):
      cost[i, j] = min(cost[i - 1, j] + 1, cost[i, j - 1] + 1, cost[i - 1, j - 1] + (x != y))
  return cost[-1, -1]


def test_edit_distance_matches_the_textbook_recurrence(rng):
  tokens_BT, labels_BL = rng.integers(0, 3, (40, 7)), rng.integers(0, 3, (40, 5))
  tokens_BT = np.where(np.arange(7) < rng.integers(0, 8, (40, 1)), tokens_BT, -1)
  labels_BL = np.where(np.arange(5) < rng.integers(0, 6, (40, 1)), labels_BL, -1)
  expect = [levenshtein(a[a >= 0], b[b >= 0]) for a, b in zip(tokens_BT, labels_BL, strict=True)]
  assert edit_distance(jnp.asarray(tokens_BT), jnp.asarray(labels_BL)).tolist() == expect


def test_evaluation_counts_token_errors():
  top = np.array([[0, 1, 0, 2], [3, 0, 0, 0]])
  batch = {'labels': jnp.array([[1, 3, -1], [3, 1, 2]]), 'weights': jnp.ones(2)}
  ratios = Ctc().loss(constant(logits=np.eye(4)[top].astype(np.float32)), batch, None)
  assert value(ratios['token_error_rate']) == pytest.approx((1 + 2) / 5)


@pytest.mark.oracle
@pytest.mark.parametrize('kind', ['softmax', 'sigmoid'])
def test_contrastive_losses_match_torch(rng, kind):
  import torch

  logits = rng.normal(size=(5, 5)).astype(np.float32) * 3
  batch = {
    'pixel_values': jnp.zeros((5, 1)),
    'input_ids': jnp.zeros((5, 1)),
    'weights': jnp.ones(5),
  }
  t = torch.tensor(logits)
  if kind == 'softmax':
    ce = torch.nn.functional.cross_entropy
    expect = (ce(t, torch.arange(5)) + ce(t.T, torch.arange(5))) / 2
  else:
    sign = 2 * torch.eye(5) - 1
    expect = -torch.nn.functional.logsigmoid(sign * t).sum(-1).mean()
  ratios = Contrastive(kind).loss(constant(logits_per_image=logits), batch, KEY)
  assert value(ratios['loss']) == pytest.approx(float(expect), rel=1e-5)
  assert value(ratios['image_to_text']) == pytest.approx((logits.argmax(1) == np.arange(5)).mean())
  assert value(ratios['text_to_image']) == pytest.approx((logits.argmax(0) == np.arange(5)).mean())


@pytest.mark.parametrize('kind', ['softmax', 'sigmoid'])
def test_padding_is_neither_matched_nor_a_negative(rng, kind):
  logits = rng.normal(size=(5, 5)).astype(np.float32)
  task = Contrastive(kind)
  inputs = lambda n: {'pixel_values': jnp.zeros((n, 1)), 'input_ids': jnp.zeros((n, 1))}
  whole = task.loss(
    constant(logits_per_image=logits[:3, :3]), inputs(3) | {'weights': jnp.ones(3)}, None
  )
  padded = inputs(5) | {'weights': jnp.array([1.0, 1, 1, 0, 0])}
  found = task.loss(constant(logits_per_image=logits), padded, None)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, whole)
  grad = jax.grad(lambda x: task.loss(constant(logits_per_image=x), padded, KEY)['loss'].sum)(
    jnp.asarray(logits)
  )
  assert jnp.isfinite(grad).all()
  assert not grad[3:].any()
