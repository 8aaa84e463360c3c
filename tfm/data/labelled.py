"""Labelled images as a dataset: normalised, augmented, and a pure function of (split, seed, step)."""

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
  """The images of a split: `pixels(index)` returns [n, C, H, W] of any dtype, and `labels` is int32
  [size].
  """

  pixels: Callable[[NDArray[np.int64]], NDArray[Any]]
  labels: NDArray[np.int32]


@dataclasses.dataclass(frozen=True)
class Normalise:
  """(pixels * scale - mean) / std for each channel, float32."""

  scale: float
  mean: tuple[float, ...]
  std: tuple[float, ...]

  def __call__(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
    """Return normalised pixels [n, C, H, W]. Bytes are looked up, with the numbers of
    `ImageProcessor`.
    """
    out = np.empty(pixels.shape, np.float32)
    if pixels.dtype == np.uint8:
      # A plane at a time stays in the processor's cache, six times as fast as the whole batch.
      for image, done in zip(pixels, out, strict=True):
        for channel, table in enumerate(self._tables):
          np.take(table, image[channel], out=done[channel], mode='clip')
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
  """A dataset (`tfm.data.dataset.Dataset`) of `pixel_values` float32 [B, C, H, W] and `labels`.

  Labels are int32 [B], or float32 [B, classes] in every batch if `augment` mixes images. Evaluation
  is not augmented.

  Attributes:
    parts: The splits by name.
    names: The class names.
    normalise: Applied to all pixels.
    augment: Applied to the batches of training.
    batch_size: Rows of a batch of training, over all hosts.
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
    """None: there is no text."""
    return

  @functools.cached_property
  def fingerprint(self) -> str:
    return self.digest()

  def batch(self, split: str, seed: int, step: int, rows: slice | None = None) -> Raw:
    """Return batch number `step` of an endless sequence of epochs, or its `rows` only."""
    self._split(split)
    at = np.arange(self.batch_size, dtype=np.int64)[rows or slice(None)]
    first = step * self.batch_size
    sample = at + first
    if not self.augment.mixes:
      pixels, labels = self._augmented(split, seed, sample)
    else:
      order = int(stateless_rng.mix(seed, stateless_rng.word(f'partners of {split}'), step)[0])
      partner = stateless_rng.permute(at, self.batch_size, order) + first
      pixels, labels = self._mixed(split, seed, sample, partner)
    key = stateless_rng.row_keys(sample, seed, split)
    return {'pixel_values': pixels, 'labels': labels, 'sample': sample, 'key': key}

  def eval_steps(self, split: str, batch: int) -> int:
    """Return the number of batches of `eval_batches` with `every=1`."""
    return -(-len(self._split(split).labels) // batch)

  def eval_batches(
    self, split: str, batch: int, rows: slice | None = None, every: int = 1
  ) -> Iterator[Raw]:
    """Yield each image once, in order and not augmented. The last batch is padded with rows of
    weight 0.
    """
    part = self._split(split)
    for step in range(0, self.eval_steps(split, batch), every):
      sample = np.arange(step * batch, (step + 1) * batch, dtype=np.int64)[rows or slice(None)]
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
  ) -> tuple[NDArray, NDArray[np.int32]]:
    """Return the normalised pixels and the labels of examples in the sequence, before mixing."""
    part, key = self._split(split), stateless_rng.row_keys(sample, seed, split)
    index, _ = stateless_rng.shuffled(sample, len(part.labels), seed, split)
    pixels = self.augment.move(part.pixels(index), key)
    if not self.augment.changes:
      return self.normalise(pixels), part.labels[index]
    return self.normalise.unit(
      self.augment.change(self.normalise.scaled(pixels), key)
    ), part.labels[index]

  def _mixed(
    self, split: str, seed: int, sample: NDArray[np.int64], partner: NDArray[np.int64]
  ) -> tuple[NDArray, NDArray]:
    # A partner may be a row of another host, so this host makes it too: hosts must agree on every
    # row.
    needed, at = np.unique(np.concatenate([sample, partner]), return_inverse=True)
    pixels, labels = self._augmented(split, seed, needed)
    own, other = at[: len(sample)], at[len(sample) :]
    target = self._one_hot(labels)
    key = stateless_rng.row_keys(sample, seed, split)
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
  """Return the arrays of a raw batch of images [C, H, W]; `classes` counts where labels are mixed."""
  labels = (
    ArraySpec((batch, classes), np.float32, 'B-')
    if augment.mixes
    else ArraySpec((batch,), np.int32, 'B')
  )
  return {'pixel_values': ArraySpec((batch, *shape), np.float32, 'BCHW'), 'labels': labels}


def check_normalise(
  mean: tuple[float, ...], std: tuple[float, ...], channels: int
) -> Iterator[str]:
  """Yield a sentence for each error in the fields `mean` and `std`."""
  for name, value in (('mean', mean), ('std', std)):
    if len(value) not in (1, channels):
      yield f'{name}: has {len(value)} numbers for {channels} channels. Expected {channels}, or one for all.'
  if not all(x > 0 for x in std):
    yield f'std: is {std}. Expected positive numbers.'
