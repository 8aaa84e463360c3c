"""Randomness without state: numbers and permutations that are functions of a key, the same on every
host.
"""

import hashlib

import numpy as np
from numpy.typing import ArrayLike, NDArray

U64 = np.uint64
_ROUNDS = 6


def word(text: str) -> int:
  """64 bits that stand for `text` as a key."""
  return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), 'little')


def mix(*parts: ArrayLike) -> NDArray[np.uint64]:
  """A 64-bit hash of integers, elementwise over broadcast arrays (the finaliser of SplitMix64,
  Steele et al. 2014).
  """
  h: NDArray[np.uint64] = np.zeros((1,), U64)
  for part in parts:
    h = h + np.asarray(part).astype(U64) + U64(0x9E3779B97F4A7C15)
    h = (h ^ (h >> U64(30))) * U64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> U64(27))) * U64(0x94D049BB133111EB)
    h = h ^ (h >> U64(31))
  return h


def uniform(key_B: NDArray[np.uint64], stream: str, n: int) -> NDArray[np.float64]:
  """`n` numbers in [0, 1) for every row's key; another `stream` gives independent ones."""
  bits = mix(key_B[:, None], word(stream), np.arange(n)[None])
  return (bits >> U64(11)).astype(np.float64) * 2.0**-53


def permute(index: NDArray[np.int64], n: int, key: int) -> NDArray[np.int64]:
  """`pi(index)` for a permutation `pi` of `range(n)` picked by `key`; nothing of size `n` is made.

  A Feistel network over the next even number of bits; what falls outside `range(n)` is sent through
  again."""
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
  """Return the examples of an endless sequence of epochs, each its own permutation of `n` examples.

  Args:
    sample: Numbers in the sequence, [b].
    n: The number of examples of an epoch.
    seed: The seed of the run.
    split: Name of the split.

  Returns:
    The number of the example below `n`, int64 [b], and the key of its epoch, uint64 [b].
  """
  index, keys = np.empty_like(sample), np.empty(sample.shape, U64)
  for epoch in np.unique(sample // n).tolist():
    mine = sample // n == epoch
    key = int(mix(seed, word(f'epochs of {split}'), epoch)[0])
    index[mine] = permute(sample[mine] % n, n, key)
    keys[mine] = key
  return index, keys


def row_keys(sample: NDArray[np.int64], seed: int, split: str) -> NDArray[np.uint64]:
  """Return the seed of the randomness of each row, uint64 [b]."""
  return mix(seed, word(f'rows of {split}'), sample)
