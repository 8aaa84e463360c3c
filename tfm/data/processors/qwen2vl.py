"""Images of any size as patches, for Qwen2-VL and Qwen2.5-VL."""

from collections.abc import Mapping
import dataclasses
import math
from typing import Any, Self

import numpy as np

from tfm.core import errors
from tfm.data.processors import pixels
from tfm.data.processors.images import CLIP_COLORS, ImageProcessor, Row
from tfm.data.processors.pixels import Size

_OLD_KEYS = {'min_pixels': 'shortest_edge', 'max_pixels': 'longest_edge'}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Qwen2VLProcessor(ImageProcessor):
  """Resize to multiples of `patch_size * merge_size`, normalise, and split into patches.

  See arXiv:2409.12191.

  Attributes:
    size: The smallest (`shortest_edge`) and largest (`longest_edge`) number of pixels of a resized
      image, height x width.
    patch_size: The side of a patch.
    temporal_patch_size: The frames of a patch. A still image is repeated.
    merge_size: The side, in patches, of the squares of consecutive patches.
  """

  name: str = 'Qwen2VLImageProcessor'
  size: Size = Size(shortest_edge=56 * 56, longest_edge=28 * 28 * 1280)
  resample: int = 3
  image_mean: float | tuple[float, ...] = CLIP_COLORS['image_mean']
  image_std: float | tuple[float, ...] = CLIP_COLORS['image_std']
  do_convert_rgb: bool = True
  patch_size: int = 14
  temporal_patch_size: int = 2
  merge_size: int = 2

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.size.shortest_edge is None or self.size.longest_edge is None:
      raise errors.ConfigError(
        f'{self.name}.size: {self.size.to_config()}. Expected shortest_edge and longest_edge.'
      )
    for field in ('patch_size', 'temporal_patch_size', 'merge_size'):
      if getattr(self, field) < 1:
        raise errors.ConfigError(
          f'{self.name}.{field}: {getattr(self, field)}. Expected a positive integer.'
        )

  @classmethod
  def rows(cls) -> Mapping[str, Row]:
    return ROWS

  @classmethod
  def from_config(cls, config: Mapping[str, Any]) -> Self:
    old = {edge: config[key] for key, edge in _OLD_KEYS.items() if config.get(key) is not None}
    rest = {k: v for k, v in config.items() if k not in _OLD_KEYS}
    if old:
      rest['size'] = (rest.get('size') or cls.options()['size'].to_config()) | old
    return dataclasses.replace(super().from_config(rest), source=dict(config))

  def to_config(self) -> dict[str, Any]:
    config = super().to_config()
    if self.source and config.get('size') != self.source.get('size'):
      # The old keys would override the new size.
      config = {k: v for k, v in config.items() if k not in _OLD_KEYS}
    return config

  def __call__(self, images: Any) -> dict[str, np.ndarray]:
    """Process images.

    Args:
      images: An image or a list of images, as for `ImageProcessor`.

    Returns:
      `pixel_values`, float32 (patches of all images, channels * temporal_patch_size *
      patch_size^2), and `image_grid_thw`, int64 (images, 3): the frames, rows and columns of
      patches of each image.
    """
    patches, grids = zip(*map(self._patches, self.each(images)), strict=True)
    return {'pixel_values': np.concatenate(patches), 'image_grid_thw': np.array(grids, np.int64)}

  def _patches(self, image: np.ndarray) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Return the patches of an image, in squares of `merge_size`, and their grid."""
    channels, height, width = image.shape
    side, merged = self.patch_size, self.merge_size
    if height % (side * merged) or width % (side * merged):
      raise errors.UserError(
        f'images: {(height, width)} is not a multiple of {side * merged}. Expected a multiple, or '
        f'a processor with do_resize.'
      )
    down, across = height // side, width // side
    cut = image.reshape(channels, down // merged, merged, side, across // merged, merged, side)
    cut = cut.transpose(1, 4, 2, 5, 0, 3, 6)[:, :, :, :, :, None]
    cut = np.repeat(cut, self.temporal_patch_size, axis=5)
    return cut.reshape(down * across, -1), (1, down, across)


def multiples(height: int, width: int, factor: int, least: int, most: int) -> tuple[int, int]:
  """Return (height, width) as multiples of `factor`, with about the same aspect ratio.

  Args:
    height: The height of the image.
    width: The width of the image.
    factor: The common divisor of the results.
    least: The smallest number of pixels.
    most: The largest number of pixels. A very long image may exceed it.

  Returns:
    The new height and width.
  """
  tall, wide = round(height / factor) * factor, round(width / factor) * factor
  if tall * wide > most:
    shrink = math.sqrt(height * width / most)
    tall = max(factor, math.floor(height / shrink / factor) * factor)
    wide = max(factor, math.floor(width / shrink / factor) * factor)
  elif tall * wide < least:
    grow = math.sqrt(least / (height * width))
    tall = math.ceil(height * grow / factor) * factor
    wide = math.ceil(width * grow / factor) * factor
  return tall, wide


def _resize(self: ImageProcessor, image: np.ndarray, where: str) -> np.ndarray:
  assert isinstance(self, Qwen2VLProcessor)
  if not self.do_resize:
    return image
  height, width = image.shape[:2]
  if max(height, width) > 200 * min(height, width):
    raise errors.UserError(
      f'{where}: {height} x {width} is too long. Expected one side at most 200 times the other.'
    )
  assert self.size.shortest_edge
  assert self.size.longest_edge
  factor = self.patch_size * self.merge_size
  tall, wide = multiples(height, width, factor, self.size.shortest_edge, self.size.longest_edge)
  return pixels.resize(image, Size(height=tall, width=wide), self.resample, where)


ROWS = {'Qwen2VLImageProcessor': Row({}, square=False, steps=(_resize,))}
