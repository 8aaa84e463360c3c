"""Attention masks: predicates on the token info of queries and keys, combined with `&`."""

from collections.abc import Callable
import dataclasses
import itertools
from typing import NamedTuple
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from tfm.core.registry import Part
from tfm.parts.tokeninfo import TokenInfo


class Band(NamedTuple):
  """A mask that depends only on the distance of two tokens and on whether they share a segment.

  Attributes:
    back: the number of positions before its own that a query may attend to; None: any number.
    ahead: the number of positions after its own that a query may attend to; None: any number.
    same_segment: whether both tokens must be in the same segment, which is not padding (segment 0).
  """

  back: int | None = None
  ahead: int | None = None
  same_segment: bool = False


@dataclasses.dataclass(frozen=True)
class Mask(Part):
  """The full mask: every query attends to every key. Other masks derive from it.

  Call a mask with token infos that broadcast: queries `[B, T, 1]`, keys `[B, 1, S]`, or tiles of
  them. It returns a bool array that is True where attention is allowed. Masks need not handle
  padding and packed documents: attention combines every mask with `Segments`.
  """

  def __call__(self, q: TokenInfo, k: TokenInfo) -> jax.Array:
    """Return True where query `q` may attend to key `k`."""
    return jnp.ones(jnp.broadcast_shapes(q.positions.shape, k.positions.shape), bool)

  @property
  def causal(self) -> bool:
    """Whether no token can attend to a later token of its document."""
    return False

  @property
  def reads(self) -> frozenset[str]:
    """The names of the `TokenInfo` extras that the mask uses."""
    return frozenset()

  @property
  def lookback(self) -> int | None:
    """The number of earlier positions that a query may attend to; None: all."""
    return None

  @property
  def band(self) -> Band | None:
    """The mask as a band of distances, for kernels that need one; None if it is not a band.

    The prediction order that `Segments` reads from the token info is not part of it.
    """
    # A subclass that overrides only `__call__` is not the full mask.
    return Band() if type(self) is Mask else None

  def reach(self, i_T: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the range of keys of each query in a document of n tokens.

    A prefix that is given as an input counts as empty.

    Args:
      i_T: positions of queries.
      n: the length of the document, in tokens.

    Returns:
      (first, end) for each query, with `end` exclusive; None if the keys are not contiguous.
    """
    return np.zeros_like(i_T), np.full_like(i_T, n)

  def pairs(self, n: int) -> int:
    """Return the number of allowed (query, key) pairs in a document of n tokens."""
    if (span := self.reach(np.arange(n), n)) is not None:
      return int(np.maximum(np.minimum(span[1], n) - np.maximum(span[0], 0), 0).sum())
    key = np.arange(n)[None, None]
    total = 0
    for start in range(0, n, 1024):
      query = key[:, :, start : start + 1024].swapaxes(1, 2)
      q, k = (TokenInfo(jnp.asarray(p), jnp.ones_like(p)) for p in (query, key))
      total += int(np.sum(self(q, k)))
    return total

  def views(self) -> tuple['View', ...]:
    """Return views: masks that together are this mask and that overlap nowhere.

    Kernels that skip masked-out tiles use them. Each view has the token order that groups its pairs
    into the fewest tiles. The default is a single view in sequence order.
    """
    return (View(self),)

  def __and__(self, other: 'Mask') -> 'Mask':
    """Return the mask that allows what both masks allow."""
    return Both(self, other)


@dataclasses.dataclass(frozen=True)
class View:
  """A mask, and the order of queries and keys in which its pairs form dense tiles.

  The order affects only the cost of attention, not its result.

  Attributes:
    mask: the mask.
    queries: maps token info to int32 sort keys `[B, T]` of queries; None: sequence order.
    keys: the same for keys.
  """

  mask: Mask
  queries: Callable[[TokenInfo], jax.Array] | None = None
  keys: Callable[[TokenInfo], jax.Array] | None = None


@dataclasses.dataclass(frozen=True)
class Both(Mask):
  """The intersection of two masks.

  Attributes:
    left: a mask.
    right: another mask.
  """

  left: Mask = Mask()
  right: Mask = Mask()

  def __call__(self, q, k):
    return self.left(q, k) & self.right(q, k)

  def reach(self, i_T, n):
    left, right = self.left.reach(i_T, n), self.right.reach(i_T, n)
    if left is None or right is None:
      return None
    return np.maximum(left[0], right[0]), np.minimum(left[1], right[1])

  @property
  def band(self):
    left, right = self.left.band, self.right.band
    if left is None or right is None:
      return None
    back, ahead = _least(left.back, right.back), _least(left.ahead, right.ahead)
    return Band(back, ahead, left.same_segment or right.same_segment)

  def views(self):
    pairs = itertools.product(self.left.views(), self.right.views())
    views = []
    for left, right in pairs:
      # One of the two orders is used: any order gives the same result.
      order = left if left.keys or left.queries else right
      views.append(View(left.mask & right.mask, order.queries, order.keys))
    return tuple(views)

  @property
  def causal(self):
    return self.left.causal or self.right.causal

  @property
  def reads(self):
    return self.left.reads | self.right.reads

  @property
  def lookback(self):
    return _least(self.left.lookback, self.right.lookback)


def _least(*distances: int | None) -> int | None:
  """Return the smallest distance; None means no limit."""
  return min((d for d in distances if d is not None), default=None)


def scrambled(x: jax.Array, seed: int) -> jax.Array:
  """Map int32 values to pseudo-random int32 values, one to one, depending on `seed`.

  It is elementwise and uses only int32 operations (the finaliser of MurmurHash3), so kernels can
  evaluate it.
  """
  x = x.astype(jnp.int32) * _signed(0x9E3779B9) + _signed(zlib.crc32(str(seed).encode()))
  for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
    x = (x ^ _shifted(x, shift)) * _signed(factor)
  return x ^ _shifted(x, 16)


def _signed(word: int) -> int:
  return (word + 2**31) % 2**32 - 2**31


def _shifted(x: jax.Array, by: int) -> jax.Array:
  """Return x >> by with zeros shifted in."""
  return (x >> by) & ((1 << (32 - by)) - 1)


def pairs_by_block(mask: Mask, n: int, block: int) -> int:
  """Return `mask.pairs(n)` for a mask that is constant on each pair of blocks.

  Args:
    mask: the mask.
    n: the length of the document, in tokens.
    block: the block size, in tokens.

  Returns:
    The number of allowed (query, key) pairs.
  """
  first = np.arange(0, n, block)
  size = np.minimum(first + block, n) - first
  info = TokenInfo(jnp.asarray(first[None]), jnp.ones((1, len(first)), jnp.int32))
  return int(size @ np.asarray(mask(info.rows(), info.columns()))[0].astype(int) @ size)
