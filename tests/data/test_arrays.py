"""Labelled images in IDX, .npy and .npz files."""

import dataclasses
import gzip
import re
import struct

import numpy as np
import pytest

from tfm.core import config, errors
from tfm.data import Arrays, Augment
from tfm.data.arrayfiles import read_array

CODES = {'u1': 0x08, 'i1': 0x09, '>i2': 0x0B, '>i4': 0x0C, '>f4': 0x0D, '>f8': 0x0E}


def idx(array, dtype='u1'):
  """Return the bytes of an IDX file."""
  shape = struct.pack(f'>{array.ndim}I', *array.shape)
  return bytes([0, 0, CODES[dtype], array.ndim]) + shape + array.astype(dtype).tobytes()


@pytest.fixture
def pixels():
  return np.random.default_rng(0).integers(0, 256, (30, 4, 5), np.uint8)


@pytest.fixture
def labels():
  return np.arange(30, dtype=np.uint8) % 3


@pytest.fixture
def data(tmp_path, pixels, labels):
  """Thirty images of 4 x 5 in a folder with MNIST's names, and ten for validation."""
  (tmp_path / 'train-images-idx3-ubyte.gz').write_bytes(gzip.compress(idx(pixels)))
  (tmp_path / 'train-labels-idx1-ubyte').write_bytes(idx(labels))
  (tmp_path / 't10k-images.idx3-ubyte').write_bytes(idx(pixels[:10]))
  (tmp_path / 't10k-labels-idx1-ubyte.gz').write_bytes(gzip.compress(idx(labels[:10])))
  return Arrays(folder=str(tmp_path), shape=(1, 4, 5), batch=4)


def save(folder, **arrays):
  """Write arrays to `.npy` files, and return their paths by name."""
  paths = {}
  for name, array in arrays.items():
    np.save(folder / f'{name}.npy', array)
    paths[name] = str(folder / f'{name}.npy')
  return paths


@pytest.mark.parametrize('dtype', CODES)
@pytest.mark.parametrize('shape', [(), (7,), (2, 3), (2, 1, 3, 2)], ids=lambda s: f'rank={len(s)}')
@pytest.mark.parametrize('zipped', [False, True], ids='zipped={}'.format)
def test_idx_files_of_any_type_and_rank_are_read(tmp_path, dtype, shape, zipped):
  array = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
  file = tmp_path / 'x'
  file.write_bytes(gzip.compress(idx(array, dtype)) if zipped else idx(array, dtype))
  found = read_array(str(file), 'data.images')
  assert found.dtype == np.dtype(dtype)
  np.testing.assert_array_equal(found, array)
  assert isinstance(found, np.memmap) == (not zipped)


def test_npz_members_are_named(tmp_path):
  file = tmp_path / 'mnist.npz'
  np.savez(file, x_train=np.arange(3), y_train=np.arange(4))
  assert read_array(f'{file}:y_train', 'data.labels').tolist() == [0, 1, 2, 3]
  with pytest.raises(
    errors.UserError,
    match=r'has 2 arrays \(x_train, y_train\)\. Expected one, or mnist\.npz:NAME',
  ):
    read_array(str(file), 'data.labels')
  with pytest.raises(errors.UserError, match=r"unknown array 'y_tran'\. Did you mean 'y_train'"):
    read_array(f'{file}:y_tran', 'data.labels')


def test_evaluation_has_every_image_once_and_pads(data, pixels, labels):
  dataset = data.open(None)
  assert (dataset.splits, dataset.vocabulary, list(dataset.names)) == (
    ('train', 'val'),
    None,
    ['0', '1', '2'],
  )
  batches = list(dataset.eval_batches('val', 4))
  assert len(batches) == dataset.eval_steps('val', 4) == 3
  assert [b['weights'].tolist() for b in batches] == [[1] * 4, [1] * 4, [1, 1, 0, 0]]
  real = np.concatenate([b['weights'] for b in batches]) > 0
  stack = lambda name: np.concatenate([b[name] for b in batches])[real]
  scaled = pixels[:10, None] / 255
  np.testing.assert_allclose(
    stack('pixel_values'), (scaled - (pixels / 255).mean()) / (pixels / 255).std(), rtol=1e-5
  )
  np.testing.assert_array_equal(stack('labels'), labels[:10])
  assert [b['sample'][0] for b in dataset.eval_batches('val', 4, every=2)] == [0, 8]
  (part,) = dataset.eval_batches('val', 4, slice(1, 3), every=3)
  np.testing.assert_array_equal(part['pixel_values'], batches[0]['pixel_values'][1:3])


def test_batches_have_the_declared_arrays(data):
  raw = data.open(None).batch('train', 0, 0)
  for name, spec in data.specs().items():
    assert (raw[name].shape, raw[name].dtype) == (spec.shape, spec.dtype)
    assert len(spec.letters) == raw[name].ndim
  assert (raw['sample'].dtype, raw['key'].dtype) == (np.int64, np.uint64)


def test_epoch_has_each_image_once_in_a_new_order(data):
  dataset = dataclasses.replace(data, batch=5).open(None)
  rows = lambda step: dataset.batch('train', 3, step)['pixel_values'].reshape(5, -1)
  first, second = (np.concatenate([rows(step) for step in range(a, a + 6)]) for a in (0, 6))
  ordered = lambda x: x[np.lexsort(x.T)]
  assert not np.array_equal(first, second)
  np.testing.assert_array_equal(ordered(first), ordered(second))
  assert len(np.unique(first, axis=0)) == 30


def test_every_nth_image_is_held_out(tmp_path, pixels, labels):
  data = Arrays(
    **save(tmp_path, images=pixels, labels=labels),
    shape=(1, 4, 5),
    val_every=5,
    mean=(0.0,),
    std=(1.0,),
  )
  dataset = data.open(None)
  (val,) = dataset.eval_batches('val', 6)
  np.testing.assert_allclose(val['pixel_values'][:, 0], pixels[4::5] / 255, rtol=1e-6)
  assert len(dataset.parts['train'].labels) == 24
  assert dataclasses.replace(data, val_every=0).open(None).splits == ('train',)


@pytest.mark.parametrize('layout', ['CHW', 'HWC', 'flat'])
def test_colour_images_of_any_layout_are_the_same(tmp_path, layout):
  pixels = np.random.default_rng(0).normal(size=(20, 3, 4, 5)).astype(np.float32)
  stored = {'CHW': pixels, 'HWC': np.moveaxis(pixels, 1, -1), 'flat': pixels.reshape(20, -1)}[
    layout
  ]
  labels = np.zeros((20, 1), np.int64)
  dataset = Arrays(**save(tmp_path, images=stored, labels=labels), shape=(3, 4, 5), batch=18).open(
    None
  )
  (raw,) = dataset.eval_batches('train', 18)
  train = np.delete(pixels, [9, 19], 0)
  mean, std = train.mean((0, 2, 3), keepdims=True), train.std((0, 2, 3), keepdims=True)
  np.testing.assert_allclose(raw['pixel_values'], (train - mean) / std, rtol=1e-4, atol=1e-5)


def test_fingerprint_changes_with_any_pixel_and_label(tmp_path, pixels, labels):
  found = set()
  for row in (None, 3, 9):
    for name in ('images', 'labels'):
      arrays = {'images': pixels.copy(), 'labels': labels.copy()}
      if row is not None:
        arrays[name][row] = 2 - arrays[name][row]
      data = Arrays(**save(tmp_path, **arrays), shape=(1, 4, 5))
      assert data.open(None).fingerprint == data.open(None).fingerprint
      found.add(data.open(None).fingerprint)
  assert len(found) == 5, 'the unchanged arrays, and four changes'


BROKEN = [
  ('train-images-idx3-ubyte.gz', lambda b: b[:-30], r'is damaged \(.*Expected a complete file'),
  (
    'train-labels-idx1-ubyte',
    lambda b: b[:-3],
    r'is truncated: 27 bytes for shape \(30,\)\. Expected 30',
  ),
  ('train-labels-idx1-ubyte', lambda b: b + b'xx', r'is too long: 32 bytes'),
  (
    'train-labels-idx1-ubyte',
    lambda b: b'hello world',
    r"begins with b'hello '\. Expected an IDX file",
  ),
  ('train-labels-idx1-ubyte', lambda b: b'\0\0\x99\1abcd', r'has no IDX header \(00 00 99 01\)'),
  (
    'train-labels-idx1-ubyte',
    lambda b: b'\0\0\x08\1' + struct.pack('>I', 2) + b'ab',
    r'has 2 labels, but .* has 30 images\. Expected 30 labels',
  ),
  (
    'train-labels-idx1-ubyte',
    lambda b: b[:-1] + b'\7',
    r'has labels from 0 to 7\. Expected 0 to 2 \(data\.classes\)',
  ),
]


@pytest.mark.parametrize(('name', 'change', 'error'), BROKEN, ids=[b[2][:20] for b in BROKEN])
def test_damaged_files_are_refused_with_their_path(data, tmp_path, name, change, error):
  file = tmp_path / name
  file.write_bytes(change(file.read_bytes()))
  with pytest.raises(errors.UserError, match=rf'data\.\w+: {re.escape(str(file))} {error}'):
    dataclasses.replace(data, classes=('a', 'b', 'c')).open(None)


def test_missing_files_are_named(data, tmp_path):
  with pytest.raises(
    errors.UserError, match=r'data\.images: cannot read nowhere\.npy \(No such file'
  ):
    Arrays(images='nowhere.npy', labels='x').open(None)
  (tmp_path / 'train-labels-idx1-ubyte').unlink()
  with pytest.raises(
    errors.UserError, match=r'data\.folder: .* has no train-labels-idx1-ubyte\.gz'
  ):
    data.open(None)


@pytest.mark.parametrize(
  ('arrays', 'error'),
  [
    ({'images': np.full((4, 1, 4, 5), np.nan)}, r'NaN or infinite, first in image 0'),
    ({'images': np.zeros((4, 7, 7))}, r'shape \(4, 7, 7\)\. Expected images of data\.shape=1,4,5'),
    ({'images': np.array([['a'] * 5] * 4)}, r'has <U1\. Expected numbers'),
    ({'images': np.zeros((4, 4, 5))}, r'has a channel of equal pixels'),
    ({'labels': np.zeros(4)}, r'has float64 of shape \(4,\)\. Expected one integer for each image'),
    ({'labels': np.array([0, -1, 2, 3])}, r'labels from -1 to 3\. Expected 0 or more'),
    ({'images': np.zeros((0, 4, 5)), 'labels': np.zeros(0, int)}, r'has no image to train on'),
  ],
)
def test_wrong_arrays_are_refused(tmp_path, arrays, error):
  good = {'images': np.random.default_rng(0).normal(size=(4, 4, 5)), 'labels': np.arange(4)}
  with pytest.raises(errors.UserError, match=error):
    Arrays(**save(tmp_path, **(good | arrays)), shape=(1, 4, 5)).open(None)


def test_distortions_need_pixels_from_zero_to_one(tmp_path):
  images = np.random.default_rng(0).uniform(0, 16, (20, 4, 5))
  files = save(tmp_path, images=images, labels=np.zeros(20, int))
  data = Arrays(**files, shape=(1, 4, 5), augment=Augment(distort=1))
  with pytest.raises(
    errors.UserError, match=r'distort needs pixels from 0 to 1.*Expected data\.scale'
  ):
    data.open(None)
  assert dataclasses.replace(data, scale=1 / 16).open(None).batch('train', 0, 0)[
    'pixel_values'
  ].shape == (16, 1, 4, 5)


@pytest.mark.parametrize(
  ('fields', 'error'),
  [
    ({}, 'images: is empty. Expected an IDX'),
    ({'folder': 'x', 'images': 'y'}, 'folder: is set together with images'),
    ({'folder': 'x', 'val_images': 'y'}, 'val_images, val_labels: only one is set'),
    ({'folder': 'x', 'shape': (28, 28)}, r'shape: is \(28, 28\)'),
    ({'folder': 'x', 'mean': (0.1, 0.2), 'std': (1.0,)}, 'mean: has 2 numbers for 1 channels'),
    ({'folder': 'x', 'mean': (0.1,)}, 'std: has 0 numbers'),
    ({'folder': 'x', 'val_every': 1}, 'val_every: is 1'),
    ({'folder': 'x', 'scale': 0.0}, 'scale: is 0.0'),
    ({'folder': 'x', 'augment': Augment(mixup=0.2)}, 'classes: is empty, but augment mixes labels'),
    ({'folder': 'x', 'augment': Augment(strength=2.0)}, 'augment.strength: is 2.0'),
  ],
  ids=lambda x: x if isinstance(x, str) else None,
)
def test_wrong_fields_are_refused(fields, error):
  with pytest.raises(errors.ConfigError, match=error):
    config.validate(Arrays(**fields))


def test_missing_array_files_are_found_before_opening(tmp_path):
  data = Arrays(images=str(tmp_path / 'x.npz:a'), labels=str(tmp_path / 'y.npy'))
  with pytest.raises(errors.UserError, match=r'data\.images: cannot read .*x\.npz \(No such file'):
    data.check_sources()
