"""The distortions of RandAugment (arXiv:1909.13719).

Images are float32 [C, H, W] with values from 0 to 1. Each distortion takes an amount from -1 to
1. Photometric operations without a direction use its absolute value.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.float32]

#: The weights of red, green and blue in a grey pixel.
_GREY = np.array([0.299, 0.587, 0.114], np.float32)


def affine(
  image: Pixels,
  matrix: tuple[tuple[float, float], tuple[float, float]],
  shift: tuple[float, float] = (0.0, 0.0),
) -> Pixels:
  """Return an image resampled at matrix (x, y) + shift, with black outside.

  Args:
    image: The image.
    matrix: Maps output to input coordinates, with the origin in the middle.
    shift: Added to the input coordinates, in pixels.

  Returns:
    An image of the same shape.
  """
  from PIL import Image

  _, H, W = image.shape
  (a, b), (d, e) = matrix
  x, y = (W - 1) / 2, (H - 1) / 2
  # Pillow's origin is the corner of the first pixel.
  x, y = x + 0.5, y + 0.5
  data = (a, b, x - a * x - b * y + shift[0], d, e, y - d * x - e * y + shift[1])
  move = lambda c: Image.fromarray(c).transform(
    (W, H), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR
  )
  return np.stack([np.asarray(move(channel)) for channel in image])


def rotate(image: Pixels, amount: float) -> Pixels:
  """Return an image turned by up to 30 degrees."""
  angle = np.deg2rad(30) * amount
  cos, sin = float(np.cos(angle)), float(np.sin(angle))
  return affine(image, ((cos, sin), (-sin, cos)))


def shear_x(image: Pixels, amount: float) -> Pixels:
  """Return an image sheared along its rows by up to 0.3."""
  return affine(image, ((1, 0.3 * amount), (0, 1)))


def shear_y(image: Pixels, amount: float) -> Pixels:
  """Return an image sheared along its columns by up to 0.3."""
  return affine(image, ((1, 0), (0.3 * amount, 1)))


def translate_x(image: Pixels, amount: float) -> Pixels:
  """Return an image moved by up to 0.45 of its width."""
  return affine(image, ((1, 0), (0, 1)), (0.45 * amount * image.shape[2], 0))


def translate_y(image: Pixels, amount: float) -> Pixels:
  """Return an image moved by up to 0.45 of its height."""
  return affine(image, ((1, 0), (0, 1)), (0, 0.45 * amount * image.shape[1]))


def brightness(image: Pixels, amount: float) -> Pixels:
  """Return an image scaled by 0.1 to 1.9."""
  return _blend(np.zeros_like(image), image, amount)


def contrast(image: Pixels, amount: float) -> Pixels:
  """Return an image with the difference from its mean grey level scaled by 0.1 to 1.9."""
  return _blend(np.full_like(image, _grey(image).mean()), image, amount)


def color(image: Pixels, amount: float) -> Pixels:
  """Return an image with the difference from its grey copy scaled by 0.1 to 1.9."""
  return _blend(np.broadcast_to(_grey(image), image.shape), image, amount)


def sharpness(image: Pixels, amount: float) -> Pixels:
  """Return an image with the difference from its smoothed copy scaled by 0.1 to 1.9."""
  padded = np.pad(image, ((0, 0), (1, 1), (1, 1)), 'edge')
  # A mean of 3 x 3 pixels, the middle one with weight 5.
  across = padded[:, :, :-2] + padded[:, :, 1:-1] + padded[:, :, 2:]
  smooth = (across[:, :-2] + across[:, 1:-1] + across[:, 2:] + 4 * image) / 13
  return _blend(smooth, image, amount)


def posterize(image: Pixels, amount: float) -> Pixels:
  """Return an image of 8 down to 4 bits."""
  levels = 2.0 ** (8 - round(4 * abs(amount)))
  level = np.minimum(np.floor(image * levels), levels - 1).astype(np.float32)
  return level / np.float32(levels - 1)


def solarize(image: Pixels, amount: float) -> Pixels:
  """Return an image with all values above 1 - |amount| inverted."""
  return np.where(image > 1 - abs(amount), 1 - image, image)


def autocontrast(image: Pixels, amount: float) -> Pixels:
  """Return an image with each channel stretched to the range from 0 to 1."""
  del amount
  low, high = image.min((1, 2), keepdims=True), image.max((1, 2), keepdims=True)
  return np.where(high > low, (image - low) / np.maximum(high - low, 1e-6), image)


def equalize(image: Pixels, amount: float) -> Pixels:
  """Return an image with the values of each channel replaced by their ranks, from 0 to 1."""
  del amount
  flat = image.reshape(len(image), -1)
  ranks = np.stack([np.searchsorted(np.sort(channel), channel) for channel in flat])
  largest = ranks.max(1, keepdims=True)
  values = np.where(largest > 0, ranks / np.maximum(largest, 1), flat)
  return values.reshape(image.shape).astype(np.float32)


def identity(image: Pixels, amount: float) -> Pixels:
  """Return the image unchanged."""
  del amount
  return image


def _grey(image: Pixels) -> Pixels:
  """Return the grey pixels [1, H, W] of an image."""
  return np.tensordot(_GREY, image, 1)[None] if len(image) == 3 else image.mean(0, keepdims=True)


def _blend(base: Pixels, image: Pixels, amount: float) -> Pixels:
  """Return base + (1 + 0.9 amount) (image - base), from 0 to 1."""
  return np.clip(base + np.float32(1 + 0.9 * amount) * (image - base), 0, 1).astype(np.float32)


#: RandAugment's operations, all equally likely.
OPERATIONS: dict[str, Callable[[Pixels, float], Pixels]] = {
  'identity': identity, 'rotate': rotate, 'shear_x': shear_x, 'shear_y': shear_y,
  'translate_x': translate_x,
  'translate_y': translate_y, 'brightness': brightness, 'contrast': contrast, 'color': color,
  'sharpness': sharpness,
  'posterize': posterize, 'solarize': solarize, 'autocontrast': autocontrast, 'equalize': equalize,
}  # fmt: skip
