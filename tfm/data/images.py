"""Image files in one folder per class."""

from collections.abc import Iterator
import dataclasses
import hashlib
import json
import logging
import os
from pathlib import Path
import tempfile
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tfm.core.errors import UserError
from tfm.data import processors
from tfm.data.augment import Augment
from tfm.data.base import Data
from tfm.data.classfolders import ClassFolders
from tfm.data.dataset import ArraySpec
from tfm.data.decoder import Decoder
from tfm.data.labelled import LabelledImages, Normalise, Split, check_normalise, image_specs
from tfm.data.processors import ImageProcessor
from tfm.data.processors.pixels import Size
from tfm.data.progress import Progress
from tfm.data.store import default_cache
from tfm.data.text import file_stamp

_BICUBIC = 3
#: The number of broken images that a message lists.
_NAMED = 5


class Scan(NamedTuple):
  """The result of decoding every image, by path.

  Attributes:
    digests: The hash of each decoded image.
    broken: The reason for each image that cannot be decoded.
  """

  digests: dict[str, str]
  broken: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Images(Data):
  """Image files that match `pattern` below `root/CLASS`.

  Files without the suffix of an image format are ignored. The first run decodes every file to find
  broken ones. Images are rotated upright, transparent pixels become white, and colours become grey
  if `shape` has one channel.

  Attributes:
    root: The folder of the classes.
    classes: The class folders, in the order of their labels. Empty takes all of them by name.
    pattern: A glob below each class.
    val_root: A folder of the same classes for validation.
    val_every: Without `val_root`, every n-th file of each class is for validation, or the last
      file of a smaller class.
    shape: Channels, height and width of an image.
    fit: 'crop' resizes the short side and crops the middle, 'stretch' resizes both sides.
    mean: Subtracted from each channel of values from 0 to 1. Defaults to 0.5.
    std: Divides each channel afterwards. Defaults to 0.5.
    processor: A published folder with a `preprocessor_config.json`, which resizes, crops and
      normalises instead.
    augment: Random changes of training images.
    broken: 'refuse' raises an error for images that cannot be decoded, 'skip' leaves them out with
      a warning.
    threads: Images that are decoded at the same time.
    in_memory: Keep decoded images, which needs a byte for each pixel and channel.
  """

  root: str = ''
  classes: tuple[str, ...] = ()
  pattern: str = '**/*'
  val_root: str = ''
  val_every: int = 10
  shape: tuple[int, ...] = (3, 224, 224)
  fit: Literal['crop', 'stretch'] = 'crop'
  mean: tuple[float, ...] = ()
  std: tuple[float, ...] = ()
  processor: str = ''
  augment: Augment = Augment()
  broken: Literal['refuse', 'skip'] = 'refuse'
  threads: int = 4
  in_memory: bool = False

  def check_sources(self) -> None:
    self._folders().files('train')

  def _folders(self) -> ClassFolders:
    return ClassFolders(
      self.root, self.classes, self.pattern, self.val_root, self.val_every, _is_image
    )

  def open(self, task: Any) -> LabelledImages:
    del task
    folders = self._folders()
    names = folders.names()
    files = {split: folders.files(split) for split in ('train', 'val')}
    processor = self._processor()
    paths = [path for split in files.values() for path, _ in split]
    decoder = Decoder(paths, processor, self.shape, self.threads, self.in_memory)
    scan = self._scan(paths, decoder, processor)
    if scan.broken:
      self._report(scan)
    splits: dict[str, Split] = {}
    first = 0
    for split, listed in files.items():
      usable = np.array([str(path) in scan.digests for path, _ in listed], bool)
      labels = np.array([label for _, label in listed], np.int32)[usable]
      if split == 'train':
        self._check_classes(labels, names)
      if len(labels):
        splits[split] = _split(decoder, first + np.flatnonzero(usable), labels)
      first += len(listed)
    digest = _digest(names, files, scan)
    normalise = _normalise(processor, self.shape[0])
    return LabelledImages(splits, names, normalise, self.augment, self.batch, lambda: digest)

  def specs(self) -> dict[str, ArraySpec]:
    return image_specs(self.batch, self.shape, self.augment, len(self.classes))

  def check(self) -> Iterator[str]:
    yield from super().check()
    if not self.root:
      yield 'root: is empty. Expected a folder with a folder of images for each class.'
    for name, least in (('val_every', 2), ('threads', 1)):
      if getattr(self, name) < least:
        yield f'{name}: is {getattr(self, name)}. Expected {least} or more.'
    if len(self.shape) != 3 or min(self.shape) < 1 or self.shape[0] not in (1, 3):
      yield (
        f'shape: is {self.shape}. Expected channels (1 or 3), height and width, such as 3,224,224.'
      )
    else:
      yield from check_normalise(self.mean or (0.5,), self.std or (0.5,), self.shape[0])
    if self.processor and (self.mean or self.std or self.fit != 'crop'):
      yield (
        'processor: is set together with mean, std or fit, which it replaces. Expected the '
        'processor only, or none.'
      )
    if self.augment.mixes and not self.classes:
      yield 'classes: is empty, but augment mixes labels. Expected the names of the classes.'

  def _check_classes(self, labels: NDArray[np.int32], names: list[str]) -> None:
    """Raise UserError if a class has no label."""
    for label, name in enumerate(names):
      if label not in labels:
        folder = Path(self.root).expanduser() / name
        raise UserError(
          f'data.root: {folder} has no image that can be decoded. Expected at least one.'
        )

  def _processor(self) -> ImageProcessor:
    """Return the image processor, published or by `shape` and `fit`."""
    if self.processor:
      processor = processors.load(self.processor)
      if not isinstance(processor, ImageProcessor):
        kind = 'no processor' if processor is None else type(processor).__name__
        raise UserError(
          f'data.processor: {self.processor} has {kind}. Expected a preprocessor_config.json of '
          f'images.'
        )
      return processor
    _, H, W = self.shape
    size = Size(height=H, width=W)
    crops = self.fit == 'crop'
    return ImageProcessor(
      size=Size(shortest_edge=max(H, W)) if crops else size,
      resample=_BICUBIC,
      do_center_crop=crops,
      crop_size=size,
      image_mean=self.mean or (0.5,),
      image_std=self.std or (0.5,),
    )

  def _scan(self, paths: list[Path], decoder: Decoder, processor: ImageProcessor) -> Scan:
    """Decode every file, or return the cached result if no file has changed."""
    identity = [processor.to_config(), self.shape, [file_stamp(path) for path in paths]]
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:24]
    cache = Path(self.cache).expanduser() if self.cache else default_cache()
    file = cache / f'images-{key}.json'
    if file.exists():
      return Scan(**json.loads(file.read_text('utf-8')))
    with Progress('decoding', len(paths), of_bytes=False) as progress:
      results = list(progress.track(decoder.results()))
    scan = Scan({}, {})
    for path, (digest, reason) in zip(paths, results, strict=True):
      if reason:
        scan.broken[str(path)] = reason
      else:
        scan.digests[str(path)] = digest
    _write(file, json.dumps(scan._asdict()))
    return scan

  def _report(self, scan: Scan) -> None:
    """Warn about broken images, or raise UserError if they are not skipped."""
    n, total = len(scan.broken), len(scan.broken) + len(scan.digests)
    reasons = list(scan.broken.values())
    listed = '\n'.join(f'  {reason}' for reason in reasons[:_NAMED] + ['...'] * (n > _NAMED))
    summary = f'data.root: {n} of {total} images cannot be decoded'
    if self.broken == 'refuse':
      raise UserError(f'{summary}. Expected complete files, or data.broken=skip.\n{listed}')
    logging.getLogger(__name__).warning('%s and are skipped:\n%s', summary, listed)


def _split(decoder: Decoder, files: NDArray[np.int64], labels: NDArray[np.int32]) -> Split:
  return Split(lambda index: decoder(files[index]), labels)


def _digest(names: list[str], files: dict[str, list[tuple[Path, int]]], scan: Scan) -> str:
  """Return a hash of all images, labels and names."""
  digest = hashlib.sha256(json.dumps(names).encode())
  for split, listed in files.items():
    examples = [(scan.digests.get(str(path)), label) for path, label in listed]
    digest.update(json.dumps([split, examples]).encode())
  return digest.hexdigest()


def _normalise(processor: ImageProcessor, channels: int) -> Normalise:
  mean, std = (np.atleast_1d(x) for x in (processor.image_mean, processor.image_std))
  if not processor.do_normalize:
    mean, std = np.zeros(1), np.ones(1)
  for name, value in (('image_mean', mean), ('image_std', std)):
    if len(value) not in (1, channels):
      raise UserError(
        f'data.processor: {name} has {len(value)} numbers. Expected data.shape of {len(value)} '
        f'channels.'
      )
  per_channel = lambda x: tuple(np.broadcast_to(x, channels).tolist())
  scale = processor.rescale_factor if processor.do_rescale else 1.0
  return Normalise(scale, per_channel(mean), per_channel(std))


def _is_image(path: Path) -> bool:
  from PIL import Image

  return not path.name.startswith('.') and path.suffix.lower() in Image.registered_extensions()


def _write(file: Path, text: str) -> None:
  """Write a file atomically, so that readers never open an incomplete file."""
  file.parent.mkdir(parents=True, exist_ok=True)
  handle, name = tempfile.mkstemp(dir=file.parent, prefix='.')
  with os.fdopen(handle, 'w', encoding='utf-8') as new:
    new.write(text)
  Path(name).replace(file)
