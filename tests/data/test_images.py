"""Image files in folders of classes."""

import dataclasses
import json
import logging

import numpy as np
from PIL import Image
import pytest

from tfm.core import config, errors
from tfm.data import Augment, Images, processors


@pytest.fixture
def folder(tmp_path):
  """Twelve red and twelve green images of different sizes and formats."""
  rng = np.random.default_rng(0)
  for label, name in enumerate(('green', 'red')):
    below = tmp_path / 'images' / name
    below.mkdir(parents=True)
    for i in range(12):
      pixels = rng.integers(0, 60, (10 + i, 14, 3), np.uint8)
      pixels[..., 1 - label] += 150
      Image.fromarray(pixels).save(below / f'{i:02}.{("png", "jpg", "bmp")[i % 3]}')
  (tmp_path / 'images' / 'red' / 'notes.txt').write_text('not an image')
  (tmp_path / 'images' / 'red' / '.hidden.png').write_text('not an image')
  return tmp_path / 'images'


@pytest.fixture
def data(folder, tmp_path):
  return Images(
    root=str(folder), shape=(3, 8, 8), batch=4, val_every=4, cache=str(tmp_path / 'cache')
  )


def rows(dataset, split):
  batches = list(dataset.eval_batches(split, 4))
  real = np.concatenate([b['weights'] for b in batches]) > 0
  return (np.concatenate([b[name] for b in batches])[real] for name in ('pixel_values', 'labels'))


def test_folders_are_the_labels_and_every_nth_file_is_held_out(data):
  dataset = data.open(None)
  assert list(dataset.names) == ['green', 'red']
  for split, n in (('train', 18), ('val', 6)):
    pixels, labels = rows(dataset, split)
    assert labels.tolist() == [0] * (n // 2) + [1] * (n // 2)
    assert pixels.shape == (n, 3, 8, 8)
    assert (pixels.mean((2, 3)).argmax(1) == 1 - labels).all()


@pytest.mark.parametrize('fit', ['crop', 'stretch'])
def test_pixels_match_the_image_processor(data, folder, fit):
  mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
  dataset = dataclasses.replace(data, fit=fit, mean=mean, std=std, augment=Augment(flip=True)).open(
    None
  )
  pixels, _ = rows(dataset, 'val')
  size = {'height': 8, 'width': 8} if fit == 'stretch' else {'shortest_edge': 8}
  config = {
    'image_processor_type': 'ViTImageProcessor',
    'size': size,
    'crop_size': 8,
    'resample': 3,
    'do_center_crop': fit == 'crop',
    'image_mean': list(mean),
    'image_std': list(std),
  }
  processor = processors.from_config(config)
  paths = [
    sorted((folder / name).glob('[0-9]*'))[i] for name in ('green', 'red') for i in (3, 7, 11)
  ]
  np.testing.assert_array_equal(pixels, processor(images=paths)['pixel_values'])


def test_published_processor_is_used_bit_for_bit(data, folder, tmp_path):
  config = {
    'image_processor_type': 'CLIPImageProcessor',
    'size': {'shortest_edge': 9},
    'crop_size': 8,
  }
  (tmp_path / 'preprocessor_config.json').write_text(json.dumps(config))
  published = dataclasses.replace(data, processor=str(tmp_path))
  pixels, _ = rows(published.open(None), 'val')
  processor = processors.load(tmp_path)
  paths = [
    sorted((folder / name).glob('[0-9]*'))[i] for name in ('green', 'red') for i in (3, 7, 11)
  ]
  np.testing.assert_array_equal(pixels, processor(images=paths)['pixel_values'])
  with pytest.raises(
    errors.UserError, match=r'data\.shape: .* becomes \(3, 8, 8\)\. Expected \(3, 9, 9\)'
  ):
    dataclasses.replace(published, shape=(3, 9, 9)).open(None).batch('train', 0, 0)
  with pytest.raises(errors.UserError, match=r'data\.processor: .* has no processor'):
    dataclasses.replace(data, processor=str(folder)).open(None)


def test_grey_and_transparent_images(data, folder):
  Image.fromarray(np.full((9, 9), 51, np.uint8)).save(folder / 'green' / '00.png')
  Image.new('RGBA', (9, 9), (255, 0, 0, 0)).save(folder / 'green' / '01.png')
  (folder / 'green' / '01.jpg').unlink()
  data = dataclasses.replace(data, mean=(0.0,), std=(1.0,))
  pixels, _ = rows(data.open(None), 'train')
  np.testing.assert_allclose(pixels[0], 0.2, rtol=1e-6)
  assert (pixels[1] == 1).all(), 'transparent pixels are white'
  grey, _ = rows(dataclasses.replace(data, shape=(1, 8, 8)).open(None), 'train')
  assert grey.shape == (18, 1, 8, 8)
  np.testing.assert_allclose(grey[0], 0.2, rtol=1e-6)


def break_two(folder):
  file = folder / 'red' / '03.png'
  file.write_bytes(file.read_bytes()[:-40])
  (folder / 'green' / '04.jpg').write_text('not an image')


def test_broken_images_are_refused_and_named(data, folder):
  break_two(folder)
  for _ in range(2):  # by decoding, and from the cache
    with pytest.raises(errors.UserError, match=r'2 of 24 images cannot be decoded') as error:
      data.open(None)
    assert 'green/04.jpg' in str(error.value)
    assert 'red/03.png' in str(error.value)
    assert 'Expected complete files, or data.broken=skip.' in str(error.value)


def test_broken_images_are_skipped_with_a_warning(data, folder, caplog):
  break_two(folder)
  with caplog.at_level(logging.WARNING):
    dataset = dataclasses.replace(data, broken='skip').open(None)
  assert '2 of 24 images cannot be decoded and are skipped' in caplog.text
  assert 'green/04.jpg' in caplog.text
  assert [len(dataset.parts[split].labels) for split in ('train', 'val')] == [17, 5]
  seen = np.concatenate([dataset.batch('train', 0, step)['labels'] for step in range(17)])
  assert (seen == 0).sum() == 4 * 8


def test_class_of_broken_images_is_an_error(data, folder):
  for file in (folder / 'red').glob('*.*'):
    file.write_text('not an image')
  with pytest.raises(errors.UserError, match=r'red has no image that can be decoded'):
    dataclasses.replace(data, broken='skip').open(None)


def test_empty_class_is_an_error(data, folder):
  (folder / 'blue').mkdir()
  (folder / 'blue' / 'notes.txt').write_text('not an image')
  with pytest.raises(errors.UserError, match=r"no file of .*blue matches '\*\*/\*'"):
    data.open(None)
  assert list(dataclasses.replace(data, classes=('red', 'green')).open(None).names) == [
    'red',
    'green',
  ]


def test_files_are_decoded_again_only_if_one_changes(data, folder, monkeypatch):
  first = data.open(None).fingerprint
  from tfm.data.decoder import Decoder

  results = []
  whole = Decoder.results
  monkeypatch.setattr(Decoder, 'results', lambda self: results.append(1) or whole(self))
  assert data.open(None).fingerprint == first
  assert not results
  Image.new('RGB', (20, 20)).save(folder / 'red' / '00.png')
  assert data.open(None).fingerprint != first
  assert results


@pytest.mark.parametrize('cached', [False, True], ids='cached={}'.format)
def test_images_in_memory_are_the_same_and_need_no_file(data, folder, cached):
  expected = [data.open(None).batch('train', 0, step) for step in range(5)] if cached else None
  dataset = dataclasses.replace(data, in_memory=True).open(None)
  found = [dataset.batch('train', 0, step) for step in range(5)]
  for file in folder.glob('*/*.*'):
    file.unlink()
  again = [dataset.batch('train', 0, step) for step in range(5)]
  for a, b in zip(found, expected or again, strict=True):
    np.testing.assert_array_equal(a['pixel_values'], b['pixel_values'])


def test_deleted_file_stops_training_with_its_path(data, folder):
  dataset = data.open(None)
  for file in (folder / 'red').glob('0*.*'):
    file.unlink()
  with pytest.raises(
    errors.UserError, match=r"data\.root: '.*red/0\d\.\w+' cannot be decoded \(.*No such file"
  ):
    _ = [dataset.batch('train', 0, step) for step in range(5)]


@pytest.mark.parametrize(
  ('fields', 'error'),
  [
    ({}, 'root: is empty'),
    ({'root': 'x', 'shape': (4, 8, 8)}, r'shape: is \(4, 8, 8\)'),
    ({'root': 'x', 'processor': 'y', 'mean': (0.5,)}, 'processor: is set together with mean'),
    ({'root': 'x', 'std': (0.5, 0.5)}, 'std: has 2 numbers for 3 channels'),
    ({'root': 'x', 'threads': 0}, 'threads: is 0'),
    ({'root': 'x', 'augment': Augment(cutmix=1.0)}, 'classes: is empty'),
  ],
  ids=lambda x: x if isinstance(x, str) else None,
)
def test_wrong_fields_are_refused(fields, error):
  with pytest.raises(errors.ConfigError, match=error):
    config.validate(Images(**fields))
