"""Image processors: published numbers, input kinds and errors."""

import dataclasses

import numpy as np
from PIL import Image
import pytest

from tfm.core import errors
from tfm.data.processors import ImageProcessor, images, pixels

from . import samples

_DINOV2 = {
  'image_processor_type': 'BitImageProcessor', 'size': {'shortest_edge': 256},
  'image_mean': [0.485, 0.456, 0.406], 'image_std': [0.229, 0.224, 0.225],
}  # fmt: skip

#: First value, last value, mean and standard deviation of the test image.
_NUMBERS = {
  'CLIP': (1.930336, 1.463334, 0.109522, 1.056135),
  'Llava': (1.930336, 1.463334, 0.109522, 1.056135),
  'ViT': (-0.968627, -0.929412, -0.041727, 0.567526),
  'Siglip': (-0.976471, -0.937255, -0.041736, 0.572437),
  'Beit': (-0.976471, -0.937255, -0.041736, 0.572437),
  'DINOv2': (0.313811, 1.629107, 0.147456, 1.236368),
  'DeiT': (0.435294, 0.145098, -0.010629, 0.559487),
  'Perceiver': (0.382310, 1.646536, 0.150001, 1.236942),
}


def _processor(name, **options):
  config = _DINOV2 if name == 'DINOv2' else {'image_processor_type': f'{name}ImageProcessor'}
  return ImageProcessor.from_config(config | options)


@pytest.mark.parametrize('name', _NUMBERS)
def test_pixel_values_match_published_numbers(name):
  pixel_values = _processor(name)(images=samples.image())['pixel_values']
  assert pixel_values.shape == (1, 3, 224, 224)
  assert pixel_values.dtype == np.float32
  wide = pixel_values.astype(np.float64)
  assert (wide.flat[0], wide.flat[-1], wide.mean(), wide.std()) == pytest.approx(
    _NUMBERS[name], abs=1e-6
  )


def test_qualities_of_the_test_image():
  assert samples.image().sum(dtype=np.int64) == 43_983_983


@pytest.mark.parametrize(
  'kind', ['pillow', 'path', 'str', 'channels_first', 'int64', 'float', 'batch_of_one']
)
def test_input_kinds_agree(kind, tmp_path):
  pixels_in = samples.image()
  Image.fromarray(pixels_in).save(tmp_path / 'image.png')
  image = {
    'pillow': Image.fromarray(pixels_in), 'path': tmp_path / 'image.png',
    'str': str(tmp_path / 'image.png'),
    'channels_first': np.moveaxis(pixels_in, -1, 0), 'int64': pixels_in.astype(np.int64),
    'float': pixels_in.astype(np.float32), 'batch_of_one': pixels_in[None],
  }[kind]  # fmt: skip
  processor = _processor('ViT')
  np.testing.assert_array_equal(
    processor(images=image)['pixel_values'], processor(images=pixels_in)['pixel_values']
  )


def test_batch_rows_match_single_images():
  processor = _processor('CLIP')
  pictures = list(samples.shapes().values())
  rows = processor(images=pictures)['pixel_values']
  assert rows.shape == (len(pictures), 3, 224, 224)
  for row, picture in zip(rows, pictures, strict=True):
    np.testing.assert_array_equal(row, processor(images=picture)['pixel_values'][0])


def test_input_array_is_not_changed():
  pixels_in = samples.image()
  _processor('CLIP')(images=pixels_in)
  np.testing.assert_array_equal(pixels_in, samples.image())


def test_unit_floats_without_rescaling_match_8_bits():
  processor = dataclasses.replace(_processor('ViT'), do_rescale=False)
  unit = processor(images=samples.image() / 255)['pixel_values']
  levels = _processor('ViT')(images=samples.image())['pixel_values']
  # Floats become 8-bit levels by truncation: at most one level lower, before the resize.
  assert np.abs(unit - levels).max() <= 2.1 / 127.5


def test_path_image_is_upright(tmp_path):
  picture = Image.fromarray(samples.image())
  exif = picture.getexif()
  exif[0x0112] = 6  # to be shown turned by 270 degrees
  picture.save(tmp_path / 'turned.png', exif=exif)
  processor = _processor('ViT')
  np.testing.assert_array_equal(
    processor(images=tmp_path / 'turned.png')['pixel_values'],
    processor(images=picture.transpose(Image.Transpose.ROTATE_270))['pixel_values'],
  )


def test_transparent_pixels_are_white():
  clear = np.zeros((30, 30, 4), np.uint8)
  processor = _processor('Siglip')
  for image in (clear, Image.fromarray(clear)):
    np.testing.assert_array_equal(processor(images=image)['pixel_values'], 1.0)


def test_center_crop_pads_small_images_with_zeros():
  image = np.full((2, 3, 1), 7, np.uint8)
  cropped = pixels.center_crop(image, 5, 5)[:, :, 0]
  expected = np.zeros((5, 5), np.uint8)
  expected[2:4, 1:4] = 7
  np.testing.assert_array_equal(cropped, expected)


def test_llava_pads_to_a_square_of_the_mean_color():
  processor = _processor(
    'Llava', do_pad=True, do_resize=False, crop_size={'height': 30, 'width': 30}
  )
  image = np.full((10, 30, 3), 255, np.uint8)
  padded = processor(images=image)['pixel_values'][0]
  white = _processor('Llava')(images=np.full((9, 9, 3), 255, np.uint8))['pixel_values'][0, :, 0, 0]
  np.testing.assert_array_equal(
    padded[:, 10:20], np.broadcast_to(white[:, None, None], (3, 10, 30))
  )
  # The colour is the mean, truncated to 8 bits.
  assert np.abs(padded[:, :10]).max() < 1 / 255 / 0.26
  assert np.abs(padded[:, 20:]).max() < 1 / 255 / 0.26


@pytest.mark.parametrize(
  ('shape', 'expected'), [((300, 400), (224, 298)), ((400, 300), (298, 224)), ((7, 7), (224, 224))]
)
def test_shortest_edge_truncates_long_side(shape, expected):
  assert pixels.Size(shortest_edge=224).of(*shape) == expected


@pytest.mark.parametrize(
  ('shape', 'expected'),
  [((300, 400), (225, 300)), ((100, 1000), (30, 300)), ((300, 310), (290, 300))],
)
def test_longest_edge_bounds_long_side(shape, expected):
  assert pixels.Size(shortest_edge=300, longest_edge=300).of(*shape)[1] <= 300
  assert pixels.Size(shortest_edge=300, longest_edge=300).of(*shape) == expected


def test_processor_is_hashable_value():
  assert hash(_processor('CLIP')) == hash(_processor('CLIP'))
  assert _processor('CLIP') == _processor('CLIP')
  assert _processor('CLIP') != _processor('CLIP', size=336)


def _error(call, match):
  with pytest.raises(errors.UserError, match=match):
    call()


@pytest.mark.parametrize(
  ('name', 'image', 'match'),
  [
    ('ViT', np.zeros((30, 30), np.uint8), r'^images\[0\]: has 1 channels. Expected 3, as from'),
    ('ViT', np.zeros((30, 30, 4), np.uint8), r'^images\[0\]: has 4 channels. Expected 3'),
    (
      'ViT',
      Image.new('P', (30, 30)),
      r"^images\[0\]: the mode is 'P', and do_convert_rgb is off. Expected RGB",
    ),
    (
      'CLIP',
      np.zeros((30, 30, 5), np.uint8),
      r'^images\[0\]: the shape \(30, 30, 5\) has no axis of 1, 3 or 4 channels',
    ),
    (
      'CLIP',
      np.zeros((3, 30, 3), np.uint8),
      r'the shape \(3, 30, 3\) is ambiguous, .* Expected a Pillow',
    ),
    ('CLIP', np.zeros((0, 30, 3), np.uint8), r'the shape is \(0, 30, 3\). Expected'),
    ('CLIP', np.zeros(30, np.uint8), r'the shape is \(30,\). Expected'),
    (
      'CLIP',
      np.full((9, 9, 3), np.nan),
      r'^images\[0\]: 243 pixels are NaN or infinite. Expected numbers',
    ),
    ('CLIP', np.full((9, 9, 3), 256), r'pixels are in \[256, 256\]. Expected integers in 0..255'),
    ('CLIP', np.full((9, 9, 3), 7.5), r'pixels are in \[7.5, 7.5\]. Expected integers'),
    ('CLIP', np.full((9, 9, 3), -0.5), r'pixels are in \[-0.5, -0.5\]. Expected integers'),
    ('CLIP', np.zeros((9, 9, 3), bool), r'the dtype is bool. Expected uint8'),
    (
      'CLIP',
      np.full((9, 9, 3), 0.5),
      r'pixels are in \[0, 1\], and do_rescale would multiply them by 0.0039',
    ),
    (
      'CLIP',
      Image.new('I;16', (9, 9)),
      r"the mode 'I;16' has more than 8 bits per channel. Expected 8 bits",
    ),
    (
      'CLIP',
      3,
      r'^images\[0\]: cannot be decoded \(int\). Expected a path, a Pillow image or an array',
    ),
    (
      'CLIP',
      'none.png',
      r"^images\[0\]: 'none.png' cannot be decoded \(.*No such file.*\). Expected an image file",
    ),
    ('CLIP', [], r'^images: the batch is empty'),
    ('Siglip', [np.zeros((9, 9, 3), np.uint8), 3], r'^images\[1\]: cannot be decoded'),
  ],
)
def test_bad_image_is_named(name, image, match):
  _error(lambda: _processor(name)(images=image), match)


def test_undecodable_file_is_named(tmp_path):
  (tmp_path / 'text.png').write_text('no image')
  _error(
    lambda: _processor('CLIP')(images=tmp_path / 'text.png'),
    r"text.png' cannot be decoded \(cannot identify",
  )


def test_truncated_file_is_named(tmp_path):
  path = tmp_path / 'half.png'
  Image.fromarray(samples.image()).save(path)
  path.write_bytes(path.read_bytes()[:5000])
  _error(lambda: _processor('CLIP')(images=path), r"half.png' cannot be decoded \(")
  with Image.open(path) as opened:
    _error(lambda: _processor('CLIP')(images=opened), r"half.png' cannot be decoded \(")


def test_different_shapes_are_refused():
  processor = dataclasses.replace(_processor('CLIP'), do_center_crop=False)
  pair = [np.zeros((30, 40, 3), np.uint8), np.zeros((40, 30, 3), np.uint8)]
  _error(
    lambda: processor(images=pair),
    r'the processed shapes differ \(\(3, 224, 298\), \(3, 298, 224\)\). Expected equal shapes',
  )


def test_resize_to_nothing_is_refused():
  size = {'shortest_edge': 8, 'longest_edge': 8}
  image = np.zeros((1, 400, 3), np.uint8)
  _error(
    lambda: _processor('CLIP', size=size)(images=Image.fromarray(image)),
    r'would be resized to \(0, 8\)',
  )


@pytest.mark.parametrize(
  ('config', 'match'),
  [
    (
      {'image_processor_type': 'CLIPImagProcessor'},
      r"unknown image processor 'CLIPImagProcessor'.*Did you mean 'CLIP",
    ),
    (
      {'do_flip_channel_order': True},
      r'^ViTImageProcessor.do_flip_channel_order: this option is not supported',
    ),
    (
      {'crop_pct': 0.9},
      r'^ViTImageProcessor.crop_pct: this option is not supported and may change the output \(0.9',
    ),
    ({'image_meen': [0, 0, 0]}, r"^ViTImageProcessor.image_meen: .* Did you mean 'image_mean'"),
    (
      {'data_format': 'channels_last'},
      r'^ViTImageProcessor.data_format: this option is not supported',
    ),
    ({'do_pad': True}, r'^ViTImageProcessor.do_pad: only LlavaImageProcessor pads. Expected false'),
    (
      {'do_resize': 'yes'},
      r"^ViTImageProcessor.do_resize: 'yes' has the wrong type. Expected bool",
    ),
    ({'do_resize': 1}, r'^ViTImageProcessor.do_resize: 1 has the wrong type. Expected bool'),
    (
      {'rescale_factor': True},
      r'^ViTImageProcessor.rescale_factor: True has the wrong type. Expected float',
    ),
    (
      {'size': {'longest_edge': 9}},
      r"^ViTImageProcessor.size: \{'longest_edge': 9\} is not a size. Expected positive",
    ),
    ({'size': {'height': 9, 'width': 0}}, r'^ViTImageProcessor.size: .* is not a size'),
    (
      {'crop_size': {'shortest_edge': 9}},
      r'^ViTImageProcessor.crop_size: .* Expected height and width',
    ),
    ({'resample': 9}, r'^ViTImageProcessor.resample: 9 is not a Pillow filter. Expected 0..5'),
    ({'image_std': [1, 0, 1]}, r'^ViTImageProcessor.image_std: .* Expected positive numbers'),
    ({'image_std': [1, 1]}, r'^ViTImageProcessor.image_std: has 2 channels, but image_mean has 3'),
    (
      {'image_mean': ['a']},
      r"^ViTImageProcessor.image_mean: 'a' has the wrong type. Expected float",
    ),
  ],
)
def test_bad_config_is_refused(config, match):
  _error(
    lambda: ImageProcessor.from_config({'image_processor_type': 'ViTImageProcessor'} | config),
    match,
  )


def test_perceiver_needs_height_and_width():
  processor = _processor('Perceiver', size={'shortest_edge': 9})
  _error(
    lambda: processor(images=samples.image()),
    'PerceiverImageProcessor.size: .* Expected height and width',
  )


@pytest.mark.parametrize('name', images.ROWS)
def test_every_row_has_working_defaults(name):
  processor = ImageProcessor.from_config({'image_processor_type': name})
  height, width = (processor.crop_size if processor.do_center_crop else processor.size).of(224, 224)
  if name == 'PerceiverImageProcessor':
    height, width = processor.size.of(1, 1)
  assert processor(images=samples.image())['pixel_values'].shape == (1, 3, height, width)
