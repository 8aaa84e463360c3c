"""Decoding and geometry of single images. Arrays are (height, width, channels)."""

import dataclasses
import os
from typing import Any, Self

import numpy as np

from tfm.core import errors

#: Pillow modes with at most 8 bits per channel.
_EIGHT_BITS = (
  '1',
  'L',
  'LA',
  'La',
  'P',
  'PA',
  'RGB',
  'RGBA',
  'RGBa',
  'RGBX',
  'CMYK',
  'YCbCr',
  'LAB',
  'HSV',
)


@dataclasses.dataclass(frozen=True)
class Size:
  """A target size in pixels.

  It is a height and a width, or a short side with an optional bound on the long side.

  Attributes:
    height: The height.
    width: The width.
    shortest_edge: The short side.
    longest_edge: The largest long side.
  """

  height: int | None = None
  width: int | None = None
  shortest_edge: int | None = None
  longest_edge: int | None = None

  @classmethod
  def parse(cls, value: Any, where: str, square: bool = True) -> Self:
    """Read a size.

    Args:
      value: An object with the fields of this class, a pair (height, width), or a single number as
        in older configs.
      where: The name in errors.
      square: Whether a single number is the side of a square. Otherwise it is the short side.

    Returns:
      The size.

    Raises:
      ConfigError: The value has another form.
    """
    if isinstance(value, cls):
      return value
    if isinstance(value, int) and not isinstance(value, bool):
      value = {'height': value, 'width': value} if square else {'shortest_edge': value}
    elif isinstance(value, (list, tuple)) and len(value) == 2:
      value = {'height': value[0], 'width': value[1]}
    sides = ({'height', 'width'}, {'shortest_edge'}, {'shortest_edge', 'longest_edge'})
    fields = value if isinstance(value, dict) else {}
    given = {k: v for k, v in fields.items() if v is not None}
    if set(given) not in sides or not all(type(v) is int and v > 0 for v in given.values()):
      raise errors.ConfigError(
        f'{where}: {value!r} is not a size. Expected positive integers for height and width, for '
        'shortest_edge, or for shortest_edge and longest_edge.'
      )
    return cls(**given)

  def to_config(self) -> dict[str, int]:
    """Return the sides that are set."""
    return {k: v for k, v in dataclasses.asdict(self).items() if v is not None}

  def of(self, height: int, width: int) -> tuple[int, int]:
    """Return the (height, width) of a resized image of `height` x `width`."""
    if self.height and self.width:
      return self.height, self.width
    assert self.shortest_edge
    short, long = sorted((height, width))
    # Hugging Face rounds the short side, and truncates the long side for the unrounded short side.
    exact: float = self.shortest_edge
    if self.longest_edge and long / short * exact > self.longest_edge:
      exact = self.longest_edge * short / long
    side = round(exact)
    other = int(exact * long / short) if side != short else long
    return (side, other) if height <= width else (other, side)


def decode(image: Any, where: str, rgb: bool) -> np.ndarray:
  """Return the pixels of an image: uint8, or float in [0, 1].

  Args:
    image: A path, a Pillow image, or an array: (height, width), (height, width, channels) or
      (channels, height, width) of 0..255, or of floats in [0, 1].
    where: The name in errors.
    rgb: Whether to convert to RGB, with transparent pixels over white. A path is always converted.

  Returns:
    (height, width, channels).

  Raises:
    UserError: The image cannot be decoded, or its pixels are not finite or out of range.
  """
  from PIL import Image

  if isinstance(image, (str, os.PathLike)):
    return np.array(_over_white(_open(image, where)))
  if isinstance(image, Image.Image):
    return _pillow(image, where, rgb)
  if not hasattr(image, '__array__'):
    raise errors.UserError(
      f'{where}: cannot be decoded ({type(image).__name__}). Expected a path, a Pillow image or an '
      f'array.'
    )
  pixels = _checked(_channels_last(np.asarray(image), where), where)
  return _array_to_rgb(pixels) if rgb else pixels


def resize(image: np.ndarray, size: Size, resample: int, where: str) -> np.ndarray:
  """Resize an image with Pillow, which rounds to 8 bits between its two passes.

  Args:
    image: Pixels from `decode`.
    size: The target size.
    resample: Pillow's number of the filter, 0..5.
    where: The name in errors.

  Returns:
    Pixels of the same dtype.

  Raises:
    UserError: A side would have no pixels.
  """
  from PIL import Image

  height, width = size.of(*image.shape[:2])
  if min(height, width) < 1:
    raise errors.UserError(
      f'{where}: {image.shape[:2]} would be resized to {(height, width)}. Expected a wider image.'
    )
  unit = image.dtype != np.uint8
  levels = (image.astype(np.float64) * 255).astype(np.float32).astype(np.uint8) if unit else image
  gray = levels.shape[2] == 1
  picture = Image.fromarray(levels[:, :, 0] if gray else levels)
  resized = np.array(picture.resize((width, height), Image.Resampling(resample)))
  if gray:
    resized = resized[:, :, None]
  return (resized.astype(np.float64) * (1 / 255)).astype(np.float32) if unit else resized


def center_crop(image: np.ndarray, height: int, width: int) -> np.ndarray:
  """Return the middle of an image. A smaller image is padded with zeros.

  Args:
    image: Pixels from `decode`.
    height: The height of the result.
    width: The width of the result.

  Returns:
    (height, width, channels).
  """
  image = _centred(image, max(height, image.shape[0]), max(width, image.shape[1]), before=True)
  top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
  return image[top : top + height, left : left + width]


def pad_to_square(image: np.ndarray, color: tuple[int, ...]) -> np.ndarray:
  """Return the image in the middle of a square of `color` (0..255 per channel)."""
  side = max(image.shape[:2])
  fill = np.array(color) if image.dtype == np.uint8 else np.array(color) / 255
  return _centred(image, side, side, before=False, fill=fill)


def _centred(image: np.ndarray, height: int, width: int, before: bool, fill: Any = 0) -> np.ndarray:
  """Put `image` in the middle of a larger one.

  Args:
    image: The pixels.
    height: The height of the result.
    width: The width of the result.
    before: Put an odd pixel of padding above and to the left.
    fill: The value of the padding.
  """
  out = np.empty((height, width, image.shape[2]), image.dtype)
  out[:] = fill
  top = (height - image.shape[0] + before) // 2
  left = (width - image.shape[1] + before) // 2
  out[top : top + image.shape[0], left : left + image.shape[1]] = image
  return out


def _open(path: Any, where: str) -> Any:
  """Return the upright Pillow image in a file."""
  from PIL import Image, ImageOps

  try:
    with Image.open(path) as image:
      _check_bits(image, where)
      return ImageOps.exif_transpose(image)
  except errors.UserError:
    raise
  except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as e:
    raise errors.UserError(
      f'{where}: {os.fspath(path)!r} cannot be decoded ({e}). Expected an image file that Pillow '
      f'can read.'
    ) from e


def _pillow(image: Any, where: str, rgb: bool) -> np.ndarray:
  _check_bits(image, where)
  try:
    if rgb:
      return np.array(_over_white(image))
    if image.mode in ('L', 'RGB'):
      return np.atleast_3d(np.array(image))
  except OSError as e:  # Pillow reads the pixels of an opened file at first use
    raise errors.UserError(
      f'{where}: {getattr(image, "filename", image)!r} cannot be decoded ({e}). Expected a '
      f'complete image file.'
    ) from e
  raise errors.UserError(
    f'{where}: the mode is {image.mode!r}, and do_convert_rgb is off. Expected RGB, as from '
    f"image.convert('RGB')."
  )


def _check_bits(image: Any, where: str) -> None:
  if image.mode not in _EIGHT_BITS:
    raise errors.UserError(
      f'{where}: the mode {image.mode!r} has more than 8 bits per channel. Expected 8 bits.'
    )


def _over_white(image: Any) -> Any:
  """Return an image as RGB, with transparent pixels over white."""
  from PIL import Image

  if 'A' not in image.getbands() and image.info.get('transparency') is None:
    return image.convert('RGB')
  image = image.convert('RGBA')
  white = Image.new('RGBA', image.size, (255, 255, 255, 255))
  return Image.alpha_composite(white, image).convert('RGB')


def _channels_last(image: np.ndarray, where: str) -> np.ndarray:
  """Return an array as (height, width, channels).

  The axis of size 1, 3 or 4 is moved to the end.
  """
  if image.size == 0 or image.ndim not in (2, 3):
    raise errors.UserError(
      f'{where}: the shape is {image.shape}. Expected (height, width) or three axes.'
    )
  if image.ndim == 2:
    return image[:, :, None]
  first, last = image.shape[0] in (1, 3, 4), image.shape[2] in (1, 3, 4)
  if first and last:
    raise errors.UserError(
      f'{where}: the shape {image.shape} is ambiguous, because its first and its last axis may be '
      f'the channels. Expected a Pillow image.'
    )
  if not first and not last:
    raise errors.UserError(
      f'{where}: the shape {image.shape} has no axis of 1, 3 or 4 channels. Expected '
      f'(height, width, 3) or (3, height, width).'
    )
  return np.moveaxis(image, 0, -1) if first else image


def _checked(image: np.ndarray, where: str) -> np.ndarray:
  """Return whole numbers in 0..255 as uint8, and floats in [0, 1] unchanged."""
  if image.dtype == np.uint8:
    return np.ascontiguousarray(image)
  if image.dtype.kind not in 'iuf':
    raise errors.UserError(
      f'{where}: the dtype is {image.dtype}. Expected uint8, or floats in [0, 1].'
    )
  if not np.isfinite(image).all():
    raise errors.UserError(
      f'{where}: {int((~np.isfinite(image)).sum())} pixels are NaN or infinite. Expected numbers.'
    )
  low, high = image.min(), image.max()
  unit = image.dtype.kind == 'f' and low >= 0 and 0 < high <= 1
  if unit:
    return np.ascontiguousarray(image)
  if not (low >= 0 and high <= 255 and (image == np.floor(image)).all()):
    raise errors.UserError(
      f'{where}: pixels are in [{low}, {high}]. Expected integers in 0..255, or floats in [0, 1].'
    )
  return np.ascontiguousarray(image.astype(np.uint8))


def _array_to_rgb(image: np.ndarray) -> np.ndarray:
  channels = image.shape[2]
  if channels == 1:
    return np.repeat(image, 3, axis=2)
  if channels == 3:
    return image
  white = 255 if image.dtype == np.uint8 else 1.0
  alpha = image[..., 3:] / white
  over = alpha * image[..., :3] + (1 - alpha) * white
  return (np.round(over) if white == 255 else over).astype(image.dtype)
