"""Image processors that match Hugging Face's Pillow processors."""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from tfm.core import errors
from tfm.data.processors import pixels
from tfm.data.processors.pixels import Size
from tfm.data.processors.processor import CLASS_CUTOFF, Processor, canonical, near, typed

CLIP_COLORS = {
  'image_mean': (0.48145466, 0.4578275, 0.40821073),
  'image_std': (0.26862954, 0.26130258, 0.27577711),
}
_IMAGENET = {'image_mean': (0.485, 0.456, 0.406), 'image_std': (0.229, 0.224, 0.225)}
_BILINEAR, _BICUBIC = 2, 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageProcessor(Processor):
  """Resize, crop, rescale and normalise images. The fields have ViT's defaults.

  Attributes:
    do_resize: Whether to resize to `size`.
    size: The size after resizing.
    resample: Pillow's number of the filter: 0 nearest, 1 Lanczos, 2 bilinear, 3 bicubic, 4 box,
      5 Hamming.
    do_center_crop: Whether to crop the middle `crop_size`.
    crop_size: The size after cropping.
    do_rescale: Whether to multiply by `rescale_factor`.
    rescale_factor: The factor, usually 1/255.
    do_normalize: Whether to subtract `image_mean` and divide by `image_std`.
    image_mean: The mean of each channel, or a single value.
    image_std: The standard deviation of each channel, or a single value.
    do_convert_rgb: Whether to convert to RGB, with transparent pixels over white. Otherwise another
      mode is an error.
    do_pad: Whether to pad to a square in the mean colour first (LLaVA only).

  Example:
    >>> config = {'image_processor_type': 'CLIPImageProcessor', 'size': 336}
    >>> processor = ImageProcessor.from_config(config)
    >>> processor.size
    Size(height=None, width=None, shortest_edge=336, longest_edge=None)
    >>> processor(images=np.zeros((40, 50, 3), np.uint8))['pixel_values'].shape
    (1, 3, 224, 224)
  """

  name: str = 'ViTImageProcessor'
  do_resize: bool = True
  size: Size = Size(height=224, width=224)
  resample: int = _BILINEAR
  do_center_crop: bool = False
  crop_size: Size = Size(height=224, width=224)
  do_rescale: bool = True
  rescale_factor: float = 1 / 255
  do_normalize: bool = True
  image_mean: float | tuple[float, ...] = (0.5, 0.5, 0.5)
  image_std: float | tuple[float, ...] = (0.5, 0.5, 0.5)
  do_convert_rgb: bool = False
  do_pad: bool = False

  type_key: ClassVar[str] = 'image_processor_type'

  def __post_init__(self) -> None:
    if self.resample not in range(6):
      raise errors.ConfigError(
        f'{self.name}.resample: {self.resample!r} is not a Pillow filter. Expected 0..5.'
      )
    if self.crop_size.height is None:
      raise errors.ConfigError(
        f'{self.name}.crop_size: {self.crop_size.to_config()}. Expected height and width.'
      )
    steps = self.row(self.name).steps
    if self.do_pad and _pad not in steps:
      raise errors.ConfigError(
        f'{self.name}.do_pad: only LlavaImageProcessor pads. Expected false.'
      )
    if self.do_center_crop and not {_crop, _crop_share} & set(steps):
      raise errors.ConfigError(
        f'{self.name}.do_center_crop: this processor does not crop. Expected false.'
      )
    if not np.all(np.asarray(self.image_std) > 0):
      raise errors.ConfigError(
        f'{self.name}.image_std: {self.image_std}. Expected positive numbers.'
      )
    means, stds = np.size(self.image_mean), np.size(self.image_std)
    if means != stds and np.ndim(self.image_mean) + np.ndim(self.image_std) > 1:
      raise errors.ConfigError(
        f'{self.name}.image_std: has {stds} channels, but image_mean has {means}. Expected the '
        'same number.'
      )

  @classmethod
  def from_config(cls, config: Mapping[str, Any]) -> Self:
    """Read `preprocessor_config.json`, in the format of any version of transformers.

    Args:
      config: The config. `image_processor_type`, or else `feature_extractor_type`, selects the
        defaults.

    Raises:
      ConfigError: The type is unknown, a value is wrong, or an unsupported option changes the
        output.
    """
    kind = config.get('image_processor_type') or config.get('feature_extractor_type') or ''
    name = image_name(kind)
    row = cls.row(name)
    square = config.get('default_to_square')
    if square is None:
      square = row.square
    read = dict(row.options) | cls.read(name, config)
    for key, value in read.items():
      where = f'{name}.{key}'
      if key in ('size', 'crop_size'):
        read[key] = Size.parse(value, where, key == 'crop_size' or square)
      elif key in ('image_mean', 'image_std') and isinstance(value, (list, tuple)):
        read[key] = tuple(typed(where, v, float) for v in value)
      else:
        like = float if key.startswith('image_') else type(cls.options()[key])
        read[key] = typed(where, value, like)
    return cls(name=name, source=dict(config), **read)

  def __call__(self, images: Any) -> dict[str, np.ndarray]:
    """Process images.

    Args:
      images: An image or a list of images: a path, a Pillow image, or an array as for
        `pixels.decode`. An array of four axes is a batch.

    Returns:
      `pixel_values`, float32 (batch, channels, height, width).

    Raises:
      UserError: An image cannot be decoded, its channels differ from the config, or the final
        sizes differ.
    """
    processed = self.each(images)
    if len(shapes := {image.shape for image in processed}) > 1:
      raise errors.UserError(
        f'images: the processed shapes differ ({", ".join(map(str, sorted(shapes)))}). Expected '
        'equal shapes, by do_center_crop, or by a size with height and width.'
      )
    return {'pixel_values': np.stack(processed)}

  @classmethod
  def row(cls, name: str) -> 'Row':
    """Return the table row of a class name."""
    rows = cls.rows()
    if name not in rows:
      raise errors.ConfigError(
        f'image_processor_type: unknown image processor {name!r}. Expected a key of '
        f'tfm.data.processors.TABLE.{near(name, rows, CLASS_CUTOFF)}'
      )
    return rows[name]

  @classmethod
  def rows(cls) -> 'Mapping[str, Row]':
    """Return the table rows that this class supports, by Hugging Face's class name."""
    return ROWS

  def each(self, images: Any) -> list[np.ndarray]:
    """Return every image of a batch as float32 (channels, height, width)."""
    is_batch = isinstance(images, (list, tuple)) or getattr(images, 'ndim', 0) == 4
    batch = images if is_batch else [images]
    if len(batch) == 0:
      raise errors.UserError('images: the batch is empty. Expected at least one image.')
    return [self._one(image, f'images[{i}]') for i, image in enumerate(batch)]

  def _one(self, image: Any, where: str) -> np.ndarray:
    """Return one image as float32 (channels, height, width)."""
    image = pixels.decode(image, where, self.do_convert_rgb)
    means = max(np.size(self.image_mean), np.size(self.image_std)) if self.do_normalize else 1
    expected = (means,) if means > 1 else (1, 3)
    if image.shape[2] not in expected:
      raise errors.UserError(
        f'{where}: has {image.shape[2]} channels. Expected {" or ".join(map(str, expected))}, '
        'as from a conversion to RGB, or do_convert_rgb.'
      )
    if self.do_rescale and image.dtype != np.uint8:
      raise errors.UserError(
        f'{where}: pixels are in [0, 1], and do_rescale would multiply them by '
        f'{self.rescale_factor:.6g}. Expected 0..255, or a processor with do_rescale=False.'
      )
    for step in self.row(self.name).steps:
      image = step(self, image, where)
    if self.do_rescale:
      image = image.astype(np.float64) * self.rescale_factor
    image = image.astype(np.float32)
    if self.do_normalize:
      mean, std = (np.asarray(x, np.float32) for x in (self.image_mean, self.image_std))
      image = (image - mean) / std
    return np.ascontiguousarray(np.moveaxis(image, -1, 0))


def _resize(self: ImageProcessor, image: np.ndarray, where: str) -> np.ndarray:
  return pixels.resize(image, self.size, self.resample, where) if self.do_resize else image


def _crop(self: ImageProcessor, image: np.ndarray, where: str) -> np.ndarray:
  height, width = self.crop_size.of(*image.shape[:2])
  return pixels.center_crop(image, height, width) if self.do_center_crop else image


def _crop_share(self: ImageProcessor, image: np.ndarray, where: str) -> np.ndarray:
  """Crop `size / crop_size` of the short side, before resizing (Perceiver)."""
  if not self.do_center_crop:
    return image
  if self.size.height is None:
    raise errors.ConfigError(
      f'{self.name}.size: {self.size.to_config()}. Expected height and width.'
    )
  short = min(image.shape[:2])
  pairs = zip(self.size.of(1, 1), self.crop_size.of(1, 1), strict=True)
  height, width = (int(target / whole * short) for target, whole in pairs)
  return pixels.center_crop(image, height, width)


def _pad(self: ImageProcessor, image: np.ndarray, where: str) -> np.ndarray:
  if not self.do_pad:
    return image
  color = np.broadcast_to(self.image_mean, image.shape[2])
  return pixels.pad_to_square(image, tuple(int(c * 255) for c in color))


class Row(NamedTuple):
  """A class of Hugging Face.

  Attributes:
    options: Its defaults.
    square: Whether `size: 224` is a square.
    steps: Its steps before rescaling.
  """

  options: Mapping[str, Any]
  square: bool = True
  steps: tuple[Callable[[ImageProcessor, np.ndarray, str], np.ndarray], ...] = (_resize, _crop)


_SHORT_SIDE = {
  'size': {'shortest_edge': 224},
  'resample': _BICUBIC,
  'do_center_crop': True,
  'do_convert_rgb': True,
}

ROWS: dict[str, Row] = {
  'ViTImageProcessor': Row({}),
  'DeiTImageProcessor': Row({'size': 256, 'resample': _BICUBIC, 'do_center_crop': True}),
  'BeitImageProcessor': Row({'resample': _BICUBIC}),
  'SegformerImageProcessor': Row({'size': 512, **_IMAGENET}),
  'SiglipImageProcessor': Row({'resample': _BICUBIC, 'do_convert_rgb': True}, square=False),
  'BlipImageProcessor': Row(
    {'size': 384, 'resample': _BICUBIC, 'do_convert_rgb': True, **CLIP_COLORS}
  ),
  'CLIPImageProcessor': Row({**_SHORT_SIDE, **CLIP_COLORS}, square=False),
  'BitImageProcessor': Row({**_SHORT_SIDE, **CLIP_COLORS}, square=False),
  'LlavaImageProcessor': Row(
    {**_SHORT_SIDE, **CLIP_COLORS}, square=False, steps=(_pad, _resize, _crop)
  ),
  'PerceiverImageProcessor': Row(
    {'resample': _BICUBIC, 'do_center_crop': True, 'crop_size': 256, **_IMAGENET},
    steps=(_crop_share, _resize),
  ),
}


def image_name(name: str) -> str:
  """Return the key of `ROWS` for a class name: `CLIPFeatureExtractor` is `CLIPImageProcessor`."""
  return canonical(name).replace('FeatureExtractor', 'ImageProcessor')
