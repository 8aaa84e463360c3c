"""How a layer keeps what it must remember of earlier tokens: a choice of the run, never of the
model.
"""

from collections.abc import Mapping
import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from tfm.core.registry import Part
from tfm.parts.tokeninfo import TokenInfo

#: What a layer caches of each token: name -> an array without its first two axes, B and T.
Arrays = Mapping[str, Any]
Store = Any

#: Extras of tokens that a cache can store, and their dtypes; other extras describe whole rows only.
KEPT_EXTRAS = {'prefix': jnp.bool_}

#: A place beyond the last of any cache: what is written there is dropped.
NOWHERE = 1 << 30


@dataclasses.dataclass(frozen=True)
class Cache(Part):
  """The mixer says what it caches (keys and values, a latent), this says how.

  A row's tokens are numbered from 0 as they come; padding is not cached, so a row of n tokens takes
  n slots wherever its padding stands. A row may be cut back at any time by making its count smaller
  (`tfm.model.cache.rewind`): tokens from the count on are out of sight, and the next ones take
  their places."""

  def init(
    self, arrays: Arrays, B: int, S: int, lookback: int | None, extras: frozenset[str]
  ) -> Store:
    """An empty store for B rows of S tokens of a layer that sees no token more than `lookback`
    positions back.

    `arrays` are `jax.ShapeDtypeStruct`s. Of the tokens' extras those of `KEPT_EXTRAS` in `extras`
    are stored too."""
    raise AssertionError(f'{type(self).__name__} must make a store')

  def write(
    self,
    store: Store,
    new: dict[str, jax.Array],
    info: TokenInfo,
    count_B: jax.Array,
    lookback: int | None,
  ) -> tuple[dict[str, jax.Array], TokenInfo, Store]:
    """(all that these tokens may look at, where it stands, the store with them), rows having held
    `count_B` before.

    Arrays come back in the dtype in which they are given, `[B, S, ...]` for some S.
    """
    raise AssertionError(f'{type(self).__name__} must write')

  def extend(
    self,
    cache: Any,
    new: dict[str, jax.Array],
    info: TokenInfo,
    count_B: jax.Array | None,
    lookback: int | None = None,
  ) -> tuple[dict[str, jax.Array], TokenInfo, Any]:
    """`write` to the store of a layer's cache, which comes back with it; without a cache (None),
    what is given.
    """
    if cache is None:
      return new, info, None
    assert count_B is not None
    seen, info, store = self.write(cache['tokens'], new, info, count_B, lookback)
    return seen, info, cache | {'tokens': store}

  def rows(self, store: Store, index_B: jax.Array) -> Store:
    """A store whose row i is row `index_B[i]` of this one, to be written to apart: any number of
    rows, any of them.
    """
    raise AssertionError(f'{type(self).__name__} must give rows')

  def follow(self, store: Store, index_B: jax.Array, count_B: jax.Array) -> Store:
    """`rows`, of as many, each of which goes on from one that holds as many tokens as itself,
    `count_B`.

    They may share what they hold from then on, so none is cut back to fewer tokens.
    """
    return self.rows(store, index_B)

  @property
  def block(self) -> int | None:
    """How many tokens there are to a block that rows may share; None: they share nothing."""
    return None

  @property
  def blocks(self) -> int | None:
    """How many blocks all rows may take; None: as many as they can fill."""
    return None

  @property
  def roomy(self) -> 'Cache':
    """The same with as many blocks as rows can fill."""
    return self

  @property
  def back(self) -> int | None:
    """How many tokens a row may be cut back by; None: all of them."""
    return None

  @property
  def raw(self) -> 'Cache':
    """What keeps the arrays of `stored` as they are."""
    return self

  def stored(self, arrays: Arrays) -> Arrays:
    """What stands for `arrays` in memory."""
    return arrays

  @property
  def exact(self) -> bool:
    """Whether what is looked at is what was written, to the last bit."""
    return True

  def bytes(self, arrays: Arrays, S: int, lookback: int | None) -> int:
    """Bytes of the arrays of one row of S tokens, without their infos."""
    raise AssertionError(f'{type(self).__name__} must count its bytes')


def nbytes(arrays: Arrays) -> int:
  """Bytes that one token's arrays take."""
  return sum(math.prod(a.shape) * jnp.dtype(a.dtype).itemsize for a in arrays.values())


def zeros(arrays: Arrays, lead: tuple[int, ...]) -> dict[str, jax.Array]:
  """Empty arrays with axes `lead` before a token's own."""
  return {name: jnp.zeros((*lead, *a.shape), a.dtype) for name, a in arrays.items()}


def by_head(a: jax.Array) -> jax.Array:
  """`[B, S, K, ...]` as it is kept, `[B K, S, ...]`; what has no heads stays as it is.

  *Why*: products over the tokens of a head read them where they stand; one head's among the others'
  would be copied together at every step, at ten times the cost of the products on CPU. With an axis
  for B, of which there often is one, XLA's CPU compiler keeps two versions of each store and copies
  them four times a step."""
  if a.ndim < 4:
    return a
  B, S, K, *rest = a.shape
  return jnp.swapaxes(a, 1, 2).reshape(B * K, S, *rest)


def seen(arrays: dict[str, jax.Array], new: dict[str, jax.Array]) -> dict[str, jax.Array]:
  """Kept arrays as they are looked at, `[B, S, ...]`, in the dtypes of those of `new`."""

  def looked_at(kept: jax.Array, part: jax.Array) -> jax.Array:
    if part.ndim < 4:
      return kept
    B, _, K, *_ = part.shape
    return jnp.swapaxes(kept.reshape(B, K, *kept.shape[1:]), 1, 2)

  return in_dtypes_of({name: looked_at(a, new[name]) for name, a in arrays.items()}, new)


def empty_info(lead: tuple[int, int], extras: frozenset[str]) -> TokenInfo:
  """Return the token info of padding, with the extras among `extras` that a cache stores."""
  # Arrays of their own, so that a store may be donated.
  stored = {name: jnp.zeros(lead, dtype) for name, dtype in KEPT_EXTRAS.items() if name in extras}
  return TokenInfo(jnp.zeros(lead, jnp.int32), jnp.zeros(lead, jnp.int32), stored)


def like(info: TokenInfo, kept: TokenInfo) -> TokenInfo:
  """Return `info` with the extras that `kept` has."""
  return info.only(tuple(kept.extras))


def numbers(info: TokenInfo, count_B: jax.Array) -> tuple[jax.Array, jax.Array]:
  """(the number that each token takes in its row, `NOWHERE` or more for padding; how many tokens
  rows then hold).
  """
  real_BT = info.segment_ids > 0
  T = real_BT.shape[1]
  number_BT = count_B[:, None] + jnp.cumsum(real_BT, axis=1, dtype=jnp.int32) - 1
  # Distinct, so that a scatter need not ask which of two comes last.
  beyond_BT = jnp.broadcast_to(NOWHERE + jnp.arange(T, dtype=jnp.int32)[None], real_BT.shape)
  return jnp.where(real_BT, number_BT, beyond_BT), count_B + jnp.sum(
    real_BT, axis=1, dtype=jnp.int32
  )


def put(old: Any, new: Any, slot_BT: jax.Array) -> Any:
  """Trees of what is kept, as `by_head` has it, with new `[B, T, ...]` at each row's slots, in the
  old dtypes.

  Slots from S on are nowhere.
  """

  def all_rows(kept, part):
    slots = jnp.repeat(slot_BT, len(kept) // len(slot_BT), axis=0)
    at = lambda a, b, slot_T: a.at[slot_T].set(b, mode='drop', unique_indices=True)
    return jax.vmap(at)(kept, by_head(part.astype(kept.dtype)), slots)

  return jax.tree.map(all_rows, old, new)


def of_rows(store: Any, index_B: jax.Array) -> Any:
  """A store of arrays as `by_head` has them, of these rows of it."""
  B = len(store['info'].positions)
  return jax.tree.map(
    lambda a: a.reshape(B, -1, *a.shape[1:])[index_B].reshape(-1, *a.shape[1:]), store
  )


def before(info: TokenInfo, number_BS: jax.Array, count_B: jax.Array) -> TokenInfo:
  """`info` with the tokens numbered `count_B` and later out of sight."""
  return dataclasses.replace(
    info, segment_ids=jnp.where(number_BS < count_B[:, None], info.segment_ids, 0)
  )


def in_dtypes_of(arrays: dict[str, jax.Array], new: dict[str, jax.Array]) -> dict[str, jax.Array]:
  """`arrays` in the dtypes of the arrays of those names in `new`."""
  return {name: arrays[name].astype(a.dtype) for name, a in new.items()}
