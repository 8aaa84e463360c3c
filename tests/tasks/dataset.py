"""An in-memory dataset of arrays, and the source that opens it."""

import dataclasses

import numpy as np

from tfm.data import ArraySpec, Data, stateless_rng


class Rows:
  """A dataset in which each entry of the arrays is an example.

  The last fifth is the validation split.
  """

  vocabulary, fingerprint, splits = None, 'rows', ('train', 'val')

  def __init__(self, arrays, batch, names=()):
    self.arrays, self.batch_size, self.names = arrays, batch, names
    self.size = len(next(iter(arrays.values())))
    self.train = self.size * 4 // 5

  def batch(self, split, seed, step, examples=None):
    assert split == 'train'
    sample = (
      np.arange(self.batch_size, dtype=np.int64)[examples or slice(None)] + step * self.batch_size
    )
    return self._raw(sample % self.train, sample)

  def eval_steps(self, split, batch):
    return -(-(self.size - self.train) // batch)

  def eval_batches(self, split, batch, examples=None, every=1):
    for step in range(0, self.eval_steps(split, batch), every):
      sample = (
        np.arange(step * batch, (step + 1) * batch, dtype=np.int64)[examples or slice(None)]
        + self.train
      )
      weights = (sample < self.size).astype(np.float32)
      yield self._raw(np.minimum(sample, self.size - 1), sample) | {'weights': weights}

  def _raw(self, index, sample):
    arrays = {name: value[index] for name, value in self.arrays.items()}
    return arrays | {'sample': sample, 'key': stateless_rng.mix(0, sample)}


@dataclasses.dataclass(frozen=True)
class Source(Data):
  """Opens the arrays of `MADE` with the given name."""

  name: str = ''

  def open(self, task):
    arrays, _, names = MADE[self.name]
    return Rows(arrays, self.batch, names)

  def specs(self):
    arrays, letters, _ = MADE[self.name]
    return {
      n: ArraySpec((self.batch, *a.shape[1:]), a.dtype, letters[n]) for n, a in arrays.items()
    }


#: (arrays, axis letters, class names) by name.
MADE = {}
