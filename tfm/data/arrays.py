"""Labelled images in array files."""

from collections.abc import Iterator
import dataclasses
import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tfm.core.errors import UserError
from tfm.data.arrayfiles import check_exists, read_array
from tfm.data.augment import Augment
from tfm.data.base import Data
from tfm.data.dataset import ArraySpec
from tfm.data.labelled import LabelledImages, Normalise, Split, check_normalise, image_specs

#: MNIST's file names without their endings, by field.
_USUAL = {
  'images': 'train-images', 'labels': 'train-labels', 'val_images': 't10k-images',
  'val_labels': 't10k-labels',
}  # fmt: skip
_ENDINGS = ('-idx{}-ubyte', '-idx{}-ubyte.gz', '.idx{}-ubyte', '.idx{}-ubyte.gz')
#: Images in each block that is checked, measured or hashed.
_BLOCK = 4096


class Loaded(NamedTuple):
  """A split of the images in an array.

  Attributes:
    images: All images [n, C, H, W].
    rows: The indices of the images of the split.
    labels: The labels of these images.
  """

  images: NDArray[Any]
  rows: NDArray[np.int64]
  labels: NDArray[np.int32]


@dataclasses.dataclass(frozen=True)
class Arrays(Data):
  """Images and integer labels in IDX (MNIST's format, plain or gzipped), `.npy` or `.npz` files.

  Images are [n, H, W], [n, H, W, C], [n, C, H, W] or [n, C H W]. Write `FILE.npz:NAME` for one
  array of several.

  Attributes:
    folder: A folder with MNIST's file names (train-images-idx3-ubyte.gz, ...).
    images: The training images, if there is no `folder`.
    labels: The classes of `images`, from 0.
    val_images: The validation images.
    val_labels: The classes of `val_images`.
    val_every: Without `val_images`, every n-th image is for validation. 0 holds out none.
    classes: The names of the labels. Defaults to the numbers up to the largest label.
    shape: Channels, height and width of an image.
    scale: The factor that multiplies pixels first. Defaults to 1/255 for bytes, else 1.
    mean: Subtracted from each channel after scaling. Defaults to the mean of the training images.
    std: Divides each channel afterwards. Defaults to the standard deviation.
    augment: Random changes of training images.
  """

  folder: str = ''
  images: str = ''
  labels: str = ''
  val_images: str = ''
  val_labels: str = ''
  val_every: int = 10
  classes: tuple[str, ...] = ()
  shape: tuple[int, ...] = (1, 28, 28)
  scale: float | None = None
  mean: tuple[float, ...] = ()
  std: tuple[float, ...] = ()
  augment: Augment = Augment()

  def check_sources(self) -> None:
    for name, path in self._files().items():
      if path:
        check_exists(path, f'data.{name}')

  def open(self, task: Any) -> LabelledImages:
    del task
    files = self._files()
    loaded = {'train': self._load(files, 'images', 'labels')}
    if files.get('val_images'):
      loaded['val'] = self._load(files, 'val_images', 'val_labels')
    elif self.val_every:
      loaded = _held_out(loaded['train'], self.val_every)
    splits = {name: _split(part) for name, part in loaded.items() if len(part.labels)}
    if 'train' not in splits:
      raise UserError(
        f'data.images: {files["images"]} has no image to train on. Expected at least one.'
      )
    normalise = self._normalise(files['images'], splits['train'])
    if self.augment.changes:
      for part in splits.values():
        _check_unit(part, normalise.scale)
    largest = max(int(part.labels.max()) for part in splits.values())
    names = self.classes or tuple(map(str, range(largest + 1)))
    return LabelledImages(
      splits, names, normalise, self.augment, self.batch, lambda: _digest(splits, names)
    )

  def specs(self) -> dict[str, ArraySpec]:
    return image_specs(self.batch, self.shape, self.augment, len(self.classes))

  def check(self) -> Iterator[str]:
    yield from super().check()
    if self.folder and (named := [name for name in _USUAL if getattr(self, name)]):
      yield f'folder: is set together with {", ".join(named)}. Expected a folder, or files.'
    if not self.folder:
      for name in ('images', 'labels'):
        if not getattr(self, name):
          yield (
            f'{name}: is empty. Expected an IDX, .npy or .npz file, or data.folder=DIR with the '
            'files of MNIST.'
          )
    if bool(self.val_images) != bool(self.val_labels):
      yield 'val_images, val_labels: only one is set. Expected both, or none.'
    if self.val_every == 1 or self.val_every < 0:
      yield f'val_every: is {self.val_every}. Expected 2 or more, or 0 for no validation.'
    if len(self.shape) != 3 or min(self.shape) < 1:
      yield f'shape: is {self.shape}. Expected channels, height and width, such as 3,32,32.'
    elif self.mean or self.std:
      yield from check_normalise(self.mean, self.std, self.shape[0])
    if self.scale is not None and not self.scale > 0:
      yield f'scale: is {self.scale}. Expected a positive number.'
    if self.augment.mixes and not self.classes:
      yield 'classes: is empty, but augment mixes labels. Expected the names of the classes.'

  def _files(self) -> dict[str, str]:
    """Return the path of each field of `_USUAL`. Validation files may be missing."""
    if not self.folder:
      return {name: getattr(self, name) for name in _USUAL}
    folder, files = Path(self.folder).expanduser(), {}
    for field, name in _USUAL.items():
      rank = 1 if field.endswith('labels') else 3
      names = [name + ending.format(rank) for ending in _ENDINGS]
      existing = [folder / name for name in names if (folder / name).is_file()]
      if existing:
        files[field] = str(existing[0])
      elif not field.startswith('val') or 'val_images' in files:
        raise UserError(
          f'data.folder: {folder} has no {names[1]}. Expected the files of MNIST or Fashion-MNIST. '
          'For example, `apt-get install dataset-fashion-mnist` installs Fashion-MNIST to '
          '/usr/share/datasets/fashion-mnist.'
        )
    return files

  def _load(self, files: dict[str, str], images: str, labels: str) -> Loaded:
    """Return the checked images and labels of a split.

    Raises:
      UserError: Their numbers differ, a label is not a class, or a pixel is not finite.
    """
    array = read_array(files[images], f'data.{images}')
    pixels = self._shaped(array, f'data.{images}: {files[images]}')
    where = f'data.{labels}: {files[labels]}'
    classes = read_array(files[labels], f'data.{labels}')
    if classes.ndim == 2 and classes.shape[1] == 1:
      classes = classes[:, 0]
    if classes.ndim != 1 or classes.dtype.kind not in 'iu':
      raise UserError(
        f'{where} has {classes.dtype} of shape {classes.shape}. Expected one integer for each '
        'image.'
      )
    if len(classes) != len(pixels):
      raise UserError(
        f'{where} has {len(classes)} labels, but {files[images]} has {len(pixels)} images. '
        f'Expected {len(pixels)} labels.'
      )
    if len(classes):
      self._check_labels(classes, where)
    _check_finite(pixels, f'data.{images}: {files[images]}')
    return Loaded(pixels, np.arange(len(classes)), classes.astype(np.int32))

  def _check_labels(self, labels: NDArray[Any], where: str) -> None:
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or (self.classes and high >= len(self.classes)):
      last = f' to {len(self.classes) - 1} (data.classes)' if self.classes else ' or more'
      raise UserError(f'{where} has labels from {low} to {high}. Expected 0{last}.')

  def _shaped(self, array: NDArray[Any], where: str) -> NDArray[Any]:
    """Return images as [n, C, H, W] without a copy."""
    C, H, W = self.shape
    if array.dtype.kind not in 'iuf':
      raise UserError(f'{where} has {array.dtype}. Expected numbers.')
    if array.shape[1:] == (C, H, W):
      return array
    if array.shape[1:] == (H, W, C):
      return np.moveaxis(array, -1, 1)
    if array.shape[1:] in ((H, W), (H * W,)) and C == 1:
      return array.reshape(-1, 1, H, W)
    if array.shape[1:] == (C * H * W,):
      return array.reshape(-1, C, H, W)
    raise UserError(f'{where} has shape {array.shape}. Expected images of data.shape={C},{H},{W}.')

  def _normalise(self, path: str, train: Split) -> Normalise:
    C, scale = self.shape[0], self.scale
    if scale is None:
      scale = 1 / 255 if train.pixels(np.arange(0)).dtype == np.uint8 else 1.0
    mean, std = self.mean, self.std
    if not mean:
      mean, std = _moments(train, scale)
      if not min(std) > 0:
        raise UserError(
          f'data.images: {path} has a channel of equal pixels. Expected data.mean and data.std.'
        )
    if len(mean) == 1:
      mean = mean * C
    if len(std) == 1:
      std = std * C
    return Normalise(scale, mean, std)


def _held_out(loaded: Loaded, every: int) -> dict[str, Loaded]:
  """Split off every `every`-th image for validation."""
  is_val = np.arange(len(loaded.labels)) % every == every - 1
  part = lambda mask: loaded._replace(rows=loaded.rows[mask], labels=loaded.labels[mask])
  return {'train': part(~is_val), 'val': part(is_val)}


def _split(loaded: Loaded) -> Split:
  # Only the images of a batch are read from a mapped file.
  return Split(lambda index: np.asarray(loaded.images[loaded.rows[index]]), loaded.labels)


def _blocks(part: Split) -> Iterator[NDArray[Any]]:
  """Yield the pixels of a split in blocks."""
  for start in range(0, len(part.labels), _BLOCK):
    yield part.pixels(np.arange(start, min(start + _BLOCK, len(part.labels))))


def _check_finite(images: NDArray[Any], where: str) -> None:
  if images.dtype.kind != 'f':
    return
  for start in range(0, len(images), _BLOCK):
    bad = ~np.isfinite(images[start : start + _BLOCK])
    if bad.any():
      first = start + int(np.flatnonzero(bad.reshape(len(bad), -1).any(1))[0])
      raise UserError(
        f'{where} has pixels that are NaN or infinite, first in image {first}. Expected numbers.'
      )


def _check_unit(part: Split, scale: float) -> None:
  """Raise UserError unless all pixels are from 0 to 1 after scaling, as distortions need."""
  for block in _blocks(part):
    low, high = float(block.min()) * scale, float(block.max()) * scale
    if low < 0 or high > 1 + 1e-6:
      raise UserError(
        f'data.augment: distort needs pixels from 0 to 1, but some are from {low:.4g} to '
        f'{high:.4g}. Expected data.scale, such as 1 / the largest pixel.'
      )


def _moments(train: Split, scale: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
  """Return the mean and the standard deviation of each channel after scaling."""
  count, total, squares = 0, np.zeros(1), np.zeros(1)
  for block in _blocks(train):
    scaled = np.moveaxis(block, 1, 0).reshape(block.shape[1], -1).astype(np.float64) * scale
    count += scaled.shape[1]
    total, squares = total + scaled.sum(1), squares + np.square(scaled).sum(1)
  mean = total / count
  std = np.sqrt(np.maximum(squares / count - np.square(mean), 0))
  return tuple(map(float, mean)), tuple(map(float, std))


def _digest(splits: dict[str, Split], names: tuple[str, ...]) -> str:
  """Return a hash of all images, labels and names."""
  digest = hashlib.sha256(repr(names).encode())
  for name, part in splits.items():
    digest.update(f'{name} {len(part.labels)}'.encode())
    digest.update(part.labels.tobytes())
    for block in _blocks(part):
      digest.update(f'{block.dtype.str} {block.shape[1:]}'.encode())
      digest.update(np.ascontiguousarray(block).tobytes())
  return digest.hexdigest()
