"""Labelled images as a dataset: normalised and augmented."""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import functools
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tfm.core.errors import UserError, unknown
from tfm.data import stateless_rng
from tfm.data.augment import Augment
from tfm.data.dataset import ArraySpec, Raw


class Split(NamedTuple):
  """The images of a split.

  Attributes:
    pixels: `pixels(index)` returns images [n, C, H, W] of any dtype.
    labels: The class of each image, int32 [size].
  """

  pixels: Callable[[NDArray[np.int64]], NDArray[Any]]
  labels: NDArray[np.int32]


@dataclasses.dataclass(frozen=True)
class Normalise:
  """Return (pixels * scale - mean) / std for each channel, in float32.

  Attributes:
    scale: Multiplies the pixels.
    mean: The mean of each channel.
    std: The standard deviation of each channel.
  """

  scale: float
  mean: tuple[float, ...]
  std: tuple[float, ...]

  def __call__(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
    """Return normalised pixels [n, C, H, W].

    Bytes go through a lookup table, with the same values as `ImageProcessor`.
    """
    out = np.empty(pixels.shape, np.float32)
    if pixels.dtype == np.uint8:
      # A single plane fits in the CPU cache: six times as fast as the whole batch.
      for image, normalised in zip(pixels, out, strict=True):
        for channel, table in enumerate(self._tables):
          np.take(table, image[channel], out=normalised[channel], mode='clip')
      return out
    return self.unit(self.scaled(pixels))

  def scaled(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
    """Return pixels * scale."""
    return (pixels.astype(np.float64) * self.scale).astype(np.float32)

  def unit(self, scaled: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (scaled - mean) / std for each channel."""
    mean, std = (np.asarray(x, np.float32)[:, None, None] for x in (self.mean, self.std))
    return (scaled - mean) / std

  @functools.cached_property
  def _tables(self) -> NDArray[np.float32]:
    levels = self.scaled(np.arange(256, dtype=np.uint8))
    return self.unit(np.broadcast_to(levels, (1, len(self.mean), 1, 256)))[0, :, 0]


@dataclasses.dataclass(frozen=True)
class LabelledImages:
  """A dataset of `pixel_values` float32 [B, C, H, W] and `labels`.

  Labels are int32 [B], or float32 [B, classes] in every batch if `augment` mixes images. Evaluation
  is not augmented.

  Attributes:
    parts: The splits by name.
    names: The class names.
    normalise: Applied to all pixels.
    augment: Applied to training batches.
    batch_size: The size of the global training batch.
    digest: Returns the fingerprint of the content.
  """

  parts: dict[str, Split]
  names: Sequence[str]
  normalise: Normalise
  augment: Augment
  batch_size: int
  digest: Callable[[], str]

  @property
  def splits(self) -> tuple[str, ...]:
    return tuple(self.parts)

  @property
  def vocabulary(self) -> None:
    """None, because there is no text."""
    return

  @functools.cached_property
  def fingerprint(self) -> str:
    return self.digest()

  def batch(self, split: str, seed: int, step: int, examples: slice | None = None) -> Raw:
    """Return a batch of an endless sequence of epochs.

    Args:
      split: Name of the split.
      seed: The seed of the order and of augmentation.
      step: The number of the batch.
      examples: The slice of the batch to return. Defaults to all.

    Returns:
      The raw batch.
    """
    self._split(split)
    at = np.arange(self.batch_size, dtype=np.int64)[examples or slice(None)]
    first = step * self.batch_size
    sample = at + first
    if not self.augment.mixes:
      pixels, labels = self._augmented(split, seed, sample)
    else:
      order = int(stateless_rng.mix(seed, stateless_rng.word(f'partners of {split}'), step)[0])
      partner = stateless_rng.permute(at, self.batch_size, order) + first
      pixels, labels = self._mixed(split, seed, sample, partner)
    key = stateless_rng.example_keys(sample, seed, split)
    return {'pixel_values': pixels, 'labels': labels, 'sample': sample, 'key': key}

  def eval_steps(self, split: str, batch: int) -> int:
    """Return the number of batches of `eval_batches` with `every=1`."""
    return -(-len(self._split(split).labels) // batch)

  def eval_batches(
    self, split: str, batch: int, examples: slice | None = None, every: int = 1
  ) -> Iterator[Raw]:
    """Yield each image once, in order and without augmentation.

    The last batch is padded with examples of weight 0.

    Args:
      split: Name of the split.
      batch: The size of the global batch.
      examples: The slice of each batch to yield. Defaults to all.
      every: Yield the first batch, and each `every`-th batch after it.

    Yields:
      Raw batches.
    """
    part = self._split(split)
    for step in range(0, self.eval_steps(split, batch), every):
      sample = np.arange(step * batch, (step + 1) * batch, dtype=np.int64)[examples or slice(None)]
      inside = sample < len(part.labels)
      index = np.where(inside, sample, 0)
      labels = part.labels[index]
      yield {
        'pixel_values': self.normalise(part.pixels(index)),
        'labels': self._one_hot(labels) if self.augment.mixes else labels,
        'weights': inside.astype(np.float32),
        'sample': sample,
        'key': stateless_rng.mix(stateless_rng.word(f'eval of {split}'), sample),
      }

  def _augmented(
    self, split: str, seed: int, sample: NDArray[np.int64]
  ) -> tuple[NDArray[Any], NDArray[np.int32]]:
    """Return normalised pixels and labels, before mixing."""
    part, key = self._split(split), stateless_rng.example_keys(sample, seed, split)
    index, _ = stateless_rng.shuffled(sample, len(part.labels), seed, split)
    pixels = self.augment.move(part.pixels(index), key)
    if not self.augment.changes:
      return self.normalise(pixels), part.labels[index]
    changed = self.augment.change(self.normalise.scaled(pixels), key)
    return self.normalise.unit(changed), part.labels[index]

  def _mixed(
    self, split: str, seed: int, sample: NDArray[np.int64], partner: NDArray[np.int64]
  ) -> tuple[NDArray[Any], NDArray[Any]]:
    # A partner may belong to another host. This host computes it too, with the same result.
    needed, index = np.unique(np.concatenate([sample, partner]), return_inverse=True)
    pixels, labels = self._augmented(split, seed, needed)
    own, other = index[: len(sample)], index[len(sample) :]
    target = self._one_hot(labels)
    key = stateless_rng.example_keys(sample, seed, split)
    return self.augment.mix(pixels[own], pixels[other], target[own], target[other], key)

  def _one_hot(self, labels: NDArray[np.int32]) -> NDArray[np.float32]:
    return np.eye(len(self.names), dtype=np.float32)[labels]

  def _split(self, split: str) -> Split:
    if split not in self.parts:
      raise UserError(f'data: {unknown("split", split, self.splits)}')
    return self.parts[split]


def image_specs(
  batch: int, shape: tuple[int, ...], augment: Augment, classes: int
) -> dict[str, ArraySpec]:
  """Return the arrays of a raw batch of labelled images.

  Args:
    batch: The size of the global batch.
    shape: (C, H, W) of an image.
    augment: The augmentation. Mixed labels are probabilities.
    classes: The number of classes, used for mixed labels only.

  Returns:
    The specs of `pixel_values` and `labels`.
  """
  labels = ArraySpec((batch,), np.int32, 'B')
  if augment.mixes:
    labels = ArraySpec((batch, classes), np.float32, 'B-')
  return {'pixel_values': ArraySpec((batch, *shape), np.float32, 'BCHW'), 'labels': labels}


def check_normalise(
  mean: tuple[float, ...], std: tuple[float, ...], channels: int
) -> Iterator[str]:
  """Yield a message for each error in the fields `mean` and `std`.

  Args:
    mean: The mean of each channel, or a single value.
    std: The standard deviation of each channel, or a single value.
    channels: The number of channels.

  Yields:
    One message for each error.
  """
  for name, value in (('mean', mean), ('std', std)):
    if len(value) not in (1, channels):
      yield (
        f'{name}: has {len(value)} numbers for {channels} channels. Expected {channels} numbers, '
        'or one for all channels.'
      )
  if not all(x > 0 for x in std):
    yield f'std: is {std}. Expected positive numbers.'
