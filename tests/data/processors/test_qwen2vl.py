"""Qwen2-VL's image processor: patches and grids."""

import dataclasses

import numpy as np
import pytest

from tfm.core import errors
from tfm.data import processors
from tfm.data.processors import Qwen2VLProcessor
from tfm.data.processors.pixels import Size
from tfm.data.processors.qwen2vl import multiples

from . import samples

_OLD = {
  'image_processor_type': 'Qwen2VLImageProcessor',
  'min_pixels': 100 * 28**2,
  'max_pixels': 120 * 28**2,
}


def _default():
  return processors.from_config({'image_processor_type': 'Qwen2VLImageProcessor'})


def test_patches_match_published_numbers():
  out = _default()(images=samples.image())
  assert out['image_grid_thw'].tolist() == [[1, 22, 28]]
  assert out['pixel_values'].shape == (616, 1176)
  assert out['pixel_values'].dtype == np.float32
  wide = out['pixel_values'].astype(np.float64)
  numbers = (-1.792263, -1.366459, 0.106615, 1.084115)
  assert (wide.flat[0], wide.flat[-1], wide.mean(), wide.std()) == pytest.approx(numbers, abs=1e-6)


def test_patches_of_a_square_follow_each_other():
  y, x = np.mgrid[:4, :6].repeat(14, axis=1).repeat(14, axis=2)
  image = np.stack([y, x, 0 * x], axis=-1).astype(np.uint8)
  processor = Qwen2VLProcessor(do_resize=False, do_rescale=False, do_normalize=False)
  patches = processor(images=image)['pixel_values'].reshape(24, 3, 2, 14, 14)
  places = patches[:, :2, 0, 0, 0].astype(int).tolist()
  assert places[:6] == [[0, 0], [0, 1], [1, 0], [1, 1], [0, 2], [0, 3]]
  assert places[12] == [2, 0]
  np.testing.assert_array_equal(
    patches[:, 0], np.broadcast_to(patches[:, 0, :1, :1, :1], (24, 2, 14, 14))
  )


def test_batch_is_concatenated():
  pictures = [samples.image(), samples.shapes()['portrait']]
  together = _default()(images=pictures)
  alone = [_default()(images=p) for p in pictures]
  for key in together:
    np.testing.assert_array_equal(together[key], np.concatenate([a[key] for a in alone]))


def test_defaults_need_no_config():
  assert Qwen2VLProcessor() == _default()


def test_old_pixel_bounds_are_read_and_written_back():
  processor = processors.from_config(_OLD)
  assert processor.size == Size(shortest_edge=100 * 28**2, longest_edge=120 * 28**2)
  assert processor.to_config() == _OLD
  changed = dataclasses.replace(processor, size=Size(shortest_edge=28**2, longest_edge=9 * 28**2))
  assert 'min_pixels' not in changed.to_config()
  assert processors.from_config(changed.to_config()) == changed


@pytest.mark.parametrize(
  ('shape', 'expected'),
  [
    ((300, 400), (308, 392)),
    ((10, 10), (56, 56)),
    ((5000, 5000), (980, 980)),
    ((20, 2000), (28, 1988)),
  ],
)
def test_sides_are_multiples_within_bounds(shape, expected):
  assert multiples(*shape, 28, 56 * 56, 28 * 28 * 1280) == expected


@pytest.mark.parametrize(
  ('config', 'match'),
  [
    (
      {'size': 224},
      r"^Qwen2VLImageProcessor.size: \{'shortest_edge': 224\}. Expected shortest_edge and "
      r'longest_edge',
    ),
    ({'patch_size': 0}, r'^Qwen2VLImageProcessor.patch_size: 0. Expected a positive integer'),
    (
      {'do_center_crop': True},
      r'^Qwen2VLImageProcessor.do_center_crop: this processor does not crop. Expected false',
    ),
  ],
)
def test_bad_config_is_refused(config, match):
  with pytest.raises(errors.ConfigError, match=match):
    processors.from_config({'image_processor_type': 'Qwen2VLImageProcessor'} | config)


def test_very_long_image_is_refused():
  with pytest.raises(
    errors.UserError,
    match=r'^images\[0\]: 2 x 402 is too long. Expected one side at most 200 times',
  ):
    _default()(images=np.zeros((2, 402, 3), np.uint8))


def test_unresized_image_must_fit_the_patches():
  with pytest.raises(
    errors.UserError, match=r'^images: \(300, 400\) is not a multiple of 28. Expected a multiple'
  ):
    Qwen2VLProcessor(do_resize=False)(images=samples.image())


@pytest.mark.oracle
@pytest.mark.parametrize(
  'options',
  [{}, {'size': {'shortest_edge': 100 * 28**2, 'longest_edge': 120 * 28**2}}, {'patch_size': 16}],
  ids=str,
)
def test_patches_match_transformers(options):
  import transformers

  theirs = transformers.Qwen2VLImageProcessorPil(**options)
  ours = processors.from_config({'image_processor_type': 'Qwen2VLImageProcessor'} | options)
  for kind, picture in ({'plain': samples.image()} | samples.shapes()).items():
    if kind == 'gray_array':  # transformers takes no array of two axes
      continue
    expected = theirs(picture, return_tensors='np')
    out = ours(images=picture)
    for key in out:
      np.testing.assert_array_equal(out[key], expected[key], err_msg=kind)
