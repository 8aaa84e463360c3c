"""Stateless random numbers and permutations: functions of a key, equal on every host."""

import hashlib

import numpy as np
from numpy.typing import ArrayLike, NDArray

U64 = np.uint64
_ROUNDS = 6


def word(text: str) -> int:
  """Hash a text to 64 bits, for use in a key."""
  return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), 'little')


def mix(*parts: ArrayLike) -> NDArray[np.uint64]:
  """Return a 64-bit hash of integers, elementwise over broadcast arrays.

  It is the finaliser of SplitMix64 (Steele et al., 2014).
  """
  h: NDArray[np.uint64] = np.zeros((1,), U64)
  for part in parts:
    h = h + np.asarray(part).astype(U64) + U64(0x9E3779B97F4A7C15)
    h = (h ^ (h >> U64(30))) * U64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> U64(27))) * U64(0x94D049BB133111EB)
    h = h ^ (h >> U64(31))
  return h


def uniform(key_B: NDArray[np.uint64], stream: str, n: int) -> NDArray[np.float64]:
  """Return random numbers in [0, 1).

  Args:
    key_B: The random key of each example.
    stream: A name. Different names give independent numbers.
    n: The number of values for each key.

  Returns:
    float64 [B, n].
  """
  bits = mix(key_B[:, None], word(stream), np.arange(n)[None])
  return (bits >> U64(11)).astype(np.float64) * 2.0**-53


def permute(index: NDArray[np.int64], n: int, key: int) -> NDArray[np.int64]:
  """Apply a random permutation of `range(n)` to indices, without an array of size n.

  It is a Feistel network over the next even number of bits. Results outside `range(n)` are permuted
  again.

  Args:
    index: Indices below `n`.
    n: The size of the range.
    key: Selects the permutation.

  Returns:
    The permuted indices, int64.
  """
  half = max(1, ((n - 1).bit_length() + 1) // 2)
  mask = U64((1 << half) - 1)

  def network(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    left, right = x >> U64(half), x & mask
    for i in range(_ROUNDS):
      left, right = right, left ^ (mix(key, i, right) & mask)
    return (left << U64(half)) | right

  out = network(np.asarray(index).astype(U64))
  while (outside := out >= U64(n)).any():
    out[outside] = network(out[outside])
  return out.astype(np.int64)


def shuffled(
  sample: NDArray[np.int64], n: int, seed: int, split: str
) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
  """Return examples of an endless sequence of epochs, each a different permutation.

  Args:
    sample: Positions in the sequence, int64 [b].
    n: The number of examples of an epoch.
    seed: The seed of the run.
    split: Name of the split.

  Returns:
    The index of each example below `n`, int64 [b], and the key of its epoch, uint64 [b].
  """
  index, keys = np.empty_like(sample), np.empty(sample.shape, U64)
  for epoch in np.unique(sample // n).tolist():
    in_epoch = sample // n == epoch
    key = int(mix(seed, word(f'epochs of {split}'), epoch)[0])
    index[in_epoch] = permute(sample[in_epoch] % n, n, key)
    keys[in_epoch] = key
  return index, keys


def example_keys(sample: NDArray[np.int64], seed: int, split: str) -> NDArray[np.uint64]:
  """Return the random key of each example.

  Args:
    sample: Positions in the sequence of epochs, int64 [b].
    seed: The seed of the run.
    split: Name of the split.

  Returns:
    uint64 [b].
  """
  return mix(seed, word(f'rows of {split}'), sample)
