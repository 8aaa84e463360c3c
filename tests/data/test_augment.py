"""Random changes of images, which are pure functions of example keys."""

import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from tfm.data import Arrays, Augment, distort, stateless_rng
from tfm.data.augment import boxes, crop

AUGMENTS = {
  'none': Augment(),
  'crop+flip': Augment(pad=2, flip=True),
  'distort': Augment(distort=2, strength=1.0),
  'mixup': Augment(mixup=0.4),
  'cutmix': Augment(cutmix=1.0),
  'all': Augment(pad=1, flip=True, distort=1, mixup=0.2, cutmix=1.0),
}


def keys(n):
  return stateless_rng.mix(7, np.arange(n))


@pytest.fixture
def data(tmp_path):
  """Forty images of three classes."""
  rng = np.random.default_rng(0)
  np.save(tmp_path / 'images.npy', rng.integers(0, 256, (40, 3, 6, 6), np.uint8))
  np.save(tmp_path / 'labels.npy', np.arange(40) % 3)
  files = {name: str(tmp_path / f'{name}.npy') for name in ('images', 'labels')}
  return Arrays(**files, shape=(3, 6, 6), batch=8, classes=('a', 'b', 'c'))


def same(a, b):
  assert set(a) == set(b)
  for name in a:
    np.testing.assert_array_equal(a[name], b[name], name)


@pytest.mark.parametrize('name', AUGMENTS)
def test_batches_do_not_depend_on_restarts_or_hosts(data, name):
  data = dataclasses.replace(data, augment=AUGMENTS[name])
  dataset, again = data.open(None), data.open(None)
  whole = [dataset.batch('train', 5, step) for step in range(7)]
  same(again.batch('train', 5, 6), whole[6])
  for rows in (slice(0, 4), slice(4, 8), slice(3, 5), slice(0, 8, 3)):
    same(again.batch('train', 5, 3, rows), {k: v[rows] for k, v in whole[3].items()})
  assert not np.array_equal(whole[0]['pixel_values'], dataset.batch('train', 6, 0)['pixel_values'])
  for array, spec in data.specs().items():
    assert (whole[0][array].shape, whole[0][array].dtype) == (spec.shape, spec.dtype)


@pytest.mark.parametrize('name', AUGMENTS)
def test_evaluation_is_not_augmented(data, name):
  plain = data.open(None).eval_batches('train', 8)
  augmented = dataclasses.replace(data, augment=AUGMENTS[name]).open(None).eval_batches('train', 8)
  for a, b in zip(plain, augmented, strict=True):
    np.testing.assert_array_equal(a['pixel_values'], b['pixel_values'])
    if AUGMENTS[name].mixes:
      np.testing.assert_array_equal(np.eye(3, dtype=np.float32)[a['labels']], b['labels'])
    else:
      np.testing.assert_array_equal(a['labels'], b['labels'])


def test_epochs_augment_the_same_image_differently(data):
  dataset = dataclasses.replace(data, augment=Augment(pad=2), batch=36).open(None)
  first, second = (dataset.batch('train', 0, epoch) for epoch in (0, 1))
  plain = data.open(None)
  order = [
    np.argsort(stateless_rng.shuffled(x['sample'], 36, 0, 'train')[0]) for x in (first, second)
  ]
  assert not np.array_equal(first['pixel_values'][order[0]], second['pixel_values'][order[1]])
  assert plain.fingerprint == dataset.fingerprint


def test_half_of_the_images_are_flipped():
  pixels = np.arange(4000 * 6).reshape(4000, 1, 2, 3)
  out = Augment(flip=True).move(pixels, keys(4000))
  flipped = (out == pixels[..., ::-1]).all((1, 2, 3))
  assert np.where(flipped[:, None, None, None], pixels[..., ::-1], pixels).tolist() == out.tolist()
  assert flipped.mean() == pytest.approx(0.5, abs=0.03)


def test_crops_are_shifts_that_are_equally_likely():
  pixels = np.zeros((4500, 2, 5, 5), np.uint8)
  pixels[:, :, 2, 2] = 1
  out = crop(pixels, 1, keys(4500))
  assert (out.sum((2, 3)) == 1).all()
  np.testing.assert_array_equal(out[:, 0], out[:, 1])
  counts = out[:, 0].sum(0)
  assert counts.sum() == counts[1:4, 1:4].sum()
  np.testing.assert_allclose(counts[1:4, 1:4] / 4500, 1 / 9, atol=0.02)


@pytest.mark.parametrize(('mixup', 'cutmix'), [(0.4, 0.0), (0.0, 1.0), (0.4, 1.0)])
def test_mixed_labels_match_the_image_shares(mixup, cutmix):
  n = 3000
  own, other = np.zeros((n, 2, 8, 8), np.float32), np.ones((n, 2, 8, 8), np.float32)
  target, other_target = np.tile(np.eye(2, dtype=np.float32)[:, None], (1, n, 1))
  pixels, labels = Augment(mixup=mixup, cutmix=cutmix).mix(
    own, other, target, other_target, keys(n)
  )
  assert (pixels.dtype, labels.dtype) == (np.float32, np.float32)
  np.testing.assert_allclose(labels.sum(-1), 1, rtol=1e-6)
  np.testing.assert_allclose(pixels.mean((1, 2, 3)), labels[:, 1], atol=1e-5)
  pasted = np.isin(pixels, (0, 1)).all((1, 2, 3))
  expected = 0.5 if mixup and cutmix else float(cutmix > 0)
  # The share of the blend may round to 0 or 1.
  assert pasted.mean() == pytest.approx(expected, abs=0.03)


def test_shares_of_mixup_follow_the_beta_distribution():
  n = 20_000
  own, other = np.zeros((n, 1, 1, 1), np.float32), np.ones((n, 1, 1, 1), np.float32)
  one = np.ones((n, 1), np.float32)
  pixels, _ = Augment(mixup=0.5).mix(own, other, one, one, keys(n))
  assert pixels.mean() == pytest.approx(0.5, abs=0.01)
  assert pixels.var() == pytest.approx(1 / 8, abs=0.005)  # of Beta(a, a): 1 / (4 (2 a + 1))


def test_pasted_boxes_are_rectangles_inside_the_image():
  share = np.full(500, 0.25)
  found = boxes(share, (8, 12), keys(500))
  rows, columns = found.any(2), found.any(1)
  np.testing.assert_array_equal(found, rows[:, :, None] & columns[:, None])
  assert rows.sum(1).max() == 4
  assert columns.sum(1).max() == 6


IMAGE = np.random.default_rng(0).uniform(size=(3, 12, 16)).astype(np.float32)


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('name', distort.OPERATIONS)
def test_distortions_keep_shape_and_range(name, channels):
  image = IMAGE[:channels]
  for amount in (-1.0, -0.3, 0.0, 0.4, 1.0):
    out = distort.OPERATIONS[name](image, amount)
    assert (out.shape, out.dtype) == (image.shape, np.float32)
    assert out.min() >= 0
    assert out.max() <= 1 + 1e-6


@pytest.mark.parametrize(
  'name', sorted(set(distort.OPERATIONS) - {'autocontrast', 'equalize', 'posterize'})
)
def test_amount_of_zero_changes_nothing(name):
  np.testing.assert_allclose(distort.OPERATIONS[name](IMAGE, 0.0), IMAGE, atol=1e-6)


@pytest.mark.parametrize(
  'name', sorted(set(distort.OPERATIONS) - {'identity', 'autocontrast', 'equalize'})
)
def test_amounts_change_images(name):
  operation = distort.OPERATIONS[name]
  assert np.abs(operation(IMAGE, 0.9) - IMAGE).max() > 0.02


def test_rotation_matches_scipy():
  smooth = ndimage.gaussian_filter(IMAGE[0], 2)[None]
  expected = ndimage.rotate(smooth[0], -15, reshape=False, order=1)
  found = distort.rotate(smooth, -0.5)[0]
  other = ndimage.rotate(smooth[0], 15, reshape=False, order=1)
  error = min(np.abs(found - e)[3:-3, 3:-3].max() for e in (expected, other))
  assert error < 1e-3


def test_sharpness_matches_scipy():
  kernel = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13
  smooth = ndimage.convolve(IMAGE[1].astype(float), kernel, mode='nearest')
  expected = np.clip(smooth + 1.45 * (IMAGE[1] - smooth), 0, 1)
  np.testing.assert_allclose(distort.sharpness(IMAGE, 0.5)[1], expected, atol=1e-6)


def test_translation_moves_by_a_share_of_the_side():
  image = np.zeros((1, 10, 20), np.float32)
  image[0, 5, 10] = 1
  assert np.argwhere(distort.translate_x(image, 5 / 9)).tolist() == [[0, 5, 5]]
  assert np.argwhere(distort.translate_y(image, -4 / 9)).tolist() == [[0, 7, 10]]


def test_equalize_spreads_values_evenly():
  skewed = (IMAGE**4).astype(np.float32)
  out = distort.equalize(skewed, 0.0)
  np.testing.assert_allclose(np.sort(out[0].ravel()), np.linspace(0, 1, 192), atol=1e-5)
