"""Who may look at whom: predicates on two tokens' infos, joined by `&`."""

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
  """A mask that depends on the distance of two tokens, and on whether they share a segment, and on
  nothing else.

  Attributes:
    back: how many positions before its own a query may attend to; None: any number.
    ahead: how many positions after its own a query may attend to; None: any number.
    same_segment: whether both tokens must be of one segment, which is not padding (segment 0).
  """

  back: int | None = None
  ahead: int | None = None
  same_segment: bool = False


@dataclasses.dataclass(frozen=True)
class Mask(Part):
  """Everybody sees everybody: the full mask.

  A mask is called with infos that broadcast against each other (queries `[B, T, 1]`, keys `[B, 1,
  S]`, or a kernel's tiles of them) and returns where looking is allowed. Padding and other
  documents are out of sight whatever the mask: attention joins every mask with `Segments`."""

  def __call__(self, q: TokenInfo, k: TokenInfo) -> jax.Array:
    return jnp.ones(jnp.broadcast_shapes(q.positions.shape, k.positions.shape), bool)

  @property
  def causal(self) -> bool:
    """True if no token can see a later one of its document."""
    return False

  @property
  def reads(self) -> frozenset[str]:
    """The extras of `TokenInfo` that the mask uses."""
    return frozenset()

  @property
  def lookback(self) -> int | None:
    """How many positions back a query sees at most; None: to the beginning."""
    return None

  @property
  def band(self) -> Band | None:
    """The mask as a band of distances, for kernels that take no other; None if it is none.

    The order of prediction that `Segments` reads from the infos is not part of it.
    """
    # A mask that overrides only `__call__` is not the full one.
    return Band() if type(self) is Mask else None

  def reach(self, i_T: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray] | None:
    """The first key that each query `i_T` of a document of n tokens sees and the one after the
    last, or None if what a query sees has gaps. A prefix that is read from the input counts as
    empty."""
    return np.zeros_like(i_T), np.full_like(i_T, n)

  def pairs(self, n: int) -> int:
    """How many (query, key) pairs of a document of n tokens are allowed."""
    if (span := self.reach(np.arange(n), n)) is not None:
      return int(np.maximum(np.minimum(span[1], n) - np.maximum(span[0], 0), 0).sum())
    key = np.arange(n)[None, None]
    total = 0
    for start in range(0, n, 1024):
      query = key[:, :, start : start + 1024].swapaxes(1, 2)
      total += int(
        np.sum(self(*(TokenInfo(jnp.asarray(p), jnp.ones_like(p)) for p in (query, key))))
      )
    return total

  def views(self) -> tuple['View', ...]:
    """The mask as the union of masks that share no pair, each in the order that suits it: what
    kernels go by that skip tiles. A mask that knows no better order than that of the row is one
    view of itself."""
    return (View(self),)

  def __and__(self, other: 'Mask') -> 'Mask':
    return Both(self, other)


@dataclasses.dataclass(frozen=True)
class View:
  """A mask, and the orders of a document's queries and keys in which its pairs stand close
  together.

  An order is a function of infos, int32 `[B, T]`, that tokens are sorted by (None: as they stand in
  the row). It decides what attention costs, not what it says."""

  mask: Mask
  queries: Callable[[TokenInfo], jax.Array] | None = None
  keys: Callable[[TokenInfo], jax.Array] | None = None


@dataclasses.dataclass(frozen=True)
class Both(Mask):
  """Allowed by `left` and by `right`."""

  left: Mask = Mask()
  right: Mask = Mask()

  def __call__(self, q, k):
    return self.left(q, k) & self.right(q, k)

  def reach(self, i_T, n):
    left, right = self.left.reach(i_T, n), self.right.reach(i_T, n)
    return (
      None
      if left is None or right is None
      else (np.maximum(left[0], right[0]), np.minimum(left[1], right[1]))
    )

  @property
  def band(self):
    left, right = self.left.band, self.right.band
    if left is None or right is None:
      return None
    back, ahead = _least(left.back, right.back), _least(left.ahead, right.ahead)
    return Band(back, ahead, left.same_segment or right.same_segment)

  def views(self):
    pairs = itertools.product(self.left.views(), self.right.views())
    # Of two orders one is kept: the pairs are the same in any.
    ordered = ((a, b, a if a.keys or a.queries else b) for a, b in pairs)
    return tuple(View(a.mask & b.mask, by.queries, by.keys) for a, b, by in ordered)

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
  """The least of these distances; None is no limit."""
  return min((d for d in distances if d is not None), default=None)


def scrambled(x: jax.Array, seed: int) -> jax.Array:
  """x through a bijection of the 32-bit integers, picked by `seed`: distinct x stay distinct
  (MurmurHash3's finaliser).

  Elementwise, and in int32, which kernels have.
  """
  x = x.astype(jnp.int32) * _signed(0x9E3779B9) + _signed(zlib.crc32(str(seed).encode()))
  for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
    x = (x ^ _shifted(x, shift)) * _signed(factor)
  return x ^ _shifted(x, 16)


def _signed(word: int) -> int:
  return (word + 2**31) % 2**32 - 2**31


def _shifted(x: jax.Array, by: int) -> jax.Array:
  """The bits of x moved down, with zeros for the sign's copies."""
  return (x >> by) & ((1 << (32 - by)) - 1)


def pairs_by_block(mask: Mask, n: int, block: int) -> int:
  """`mask.pairs(n)` of a mask that is one value on every pair of blocks."""
  first = np.arange(0, n, block)
  size = np.minimum(first + block, n) - first
  info = TokenInfo(jnp.asarray(first[None]), jnp.ones((1, len(first)), jnp.int32))
  return int(size @ np.asarray(mask(info.rows(), info.columns()))[0].astype(int) @ size)
