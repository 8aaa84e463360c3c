"""Decode image files to bytes of one shape, in a few threads."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
import dataclasses
import functools
import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tfm.core.errors import UserError
from tfm.data.processors import ImageProcessor, pixels

Bytes = NDArray[np.uint8]


class Decoder:
  """Resized and cropped images, uint8 [n, C, H, W], by the numbers of their files.

  Args:
    paths: The files.
    processor: Resizes and crops. Its rescaling and normalisation are left out.
    shape: Channels, height and width of every image.
    threads: Images that are decoded at the same time. Pillow decodes without Python's lock.
    in_memory: Keep decoded images.
  """

  def __init__(
    self,
    paths: Sequence[Path],
    processor: ImageProcessor,
    shape: tuple[int, ...],
    threads: int,
    in_memory: bool,
  ):
    self._paths, self._shape, self._threads = paths, shape, threads
    self._resizer = dataclasses.replace(
      processor, do_rescale=False, do_normalize=False, do_convert_rgb=False
    )
    # The system allocates pages only when an image is written to them.
    self._kept = np.empty((len(paths), *shape), np.uint8) if in_memory else None
    self._is_kept = np.zeros(len(paths), bool)

  def __call__(self, index: NDArray[np.int64]) -> Bytes:
    """Return the images of some files.

    Raises:
      UserError: A file cannot be decoded.
    """
    if not len(index):
      return np.empty((0, *self._shape), np.uint8)
    return np.stack(list(self._pool.map(self._image, index)))

  def results(self) -> Iterator[tuple[str, str]]:
    """Yield (hash, '') for each file, or ('', reason) if it cannot be decoded."""
    return self._pool.map(self._result, range(len(self._paths)))

  @functools.cached_property
  def _pool(self) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(self._threads, thread_name_prefix='tfm-decode')

  def _image(self, number: int) -> Bytes:
    if self._kept is not None and self._is_kept[number]:
      return self._kept[number]
    return self._checked(number, self._decoded(self._paths[number]))

  def _checked(self, number: int, image: Bytes) -> Bytes:
    """Check the shape of an image, and keep it if `in_memory`."""
    if image.shape != tuple(self._shape):
      raise UserError(
        f'data.shape: {self._paths[number]} becomes {image.shape}. Expected {tuple(self._shape)}.'
      )
    if self._kept is not None:
      self._kept[number] = image
      self._is_kept[number] = True
    return image

  def _decoded(self, path: Path) -> Bytes:
    from PIL import Image

    image = Image.fromarray(pixels.decode(path, 'data.root', rgb=True))
    image = image.convert('L') if self._shape[0] == 1 else image
    return self._resizer.each([image])[0].astype(np.uint8)

  def _result(self, number: int) -> tuple[str, str]:
    path = self._paths[number]
    try:
      image = self._decoded(path)
    except UserError as error:
      return '', str(error).removeprefix('data.root: ')
    self._checked(number, image)
    return hashlib.sha256(path.read_bytes()).hexdigest(), ''
