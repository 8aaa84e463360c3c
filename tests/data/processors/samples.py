"""A test image and a test sound with known processed values."""

import numpy as np
from PIL import Image


def image():
  """uint8 (300, 400, 3), sum 43,983,983."""
  y, x = np.mgrid[:300, :400]
  blue = (128 + 100 * np.sin(x / 17) + 20 * np.cos(y / 5)).astype(int)
  return np.stack([(5 * x + 3 * y) % 256, (x * y // 97) % 256, blue], axis=-1).astype(np.uint8)


def sound(seconds=3.0):
  """float32, 16 kHz: a tone, a rising one and a high one; at 3 seconds sum |x| = 14162.93."""
  t = np.arange(int(16_000 * seconds)) / 16_000
  low = 0.4 * np.sin(2 * np.pi * 440 * t)
  rising = 0.3 * np.sin(2 * np.pi * (200 * t + 300 * t**2))
  return (low + rising + 0.05 * np.cos(2 * np.pi * 3000 * t)).astype(np.float32)


def noise(samples, seed=0):
  """float32 white noise, in which no mel band is constant."""
  return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def shapes():
  """Images of odd sizes and modes, by name."""
  pixels = image()
  picture = Image.fromarray(pixels)
  clear = np.concatenate([pixels, pixels[:, :, :1]], axis=2)
  return {
    'portrait': picture.crop((0, 0, 111, 299)),
    'wide': picture.crop((0, 0, 400, 37)),
    'square': picture.crop((0, 0, 224, 224)),
    'small': picture.crop((0, 0, 50, 41)),
    'one_pixel_short': picture.crop((0, 0, 223, 225)),
    'channels_first': np.moveaxis(pixels, -1, 0),
    'gray': picture.convert('L'),
    'gray_array': pixels[:, :, 0],
    'rgba': Image.fromarray(clear),
    'rgba_array': clear,
    'palette': picture.convert('P'),
    'gray_alpha': Image.fromarray(clear).convert('LA'),
  }


#: Names in `shapes` that are not RGB.
NOT_RGB = ('gray', 'gray_array', 'rgba', 'rgba_array', 'palette', 'gray_alpha')
