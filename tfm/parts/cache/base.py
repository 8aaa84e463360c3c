"""Cache layouts for decoding: an option of the run, never of the model."""

from collections.abc import Mapping
import dataclasses
import math
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp

from tfm.core.registry import Part
from tfm.parts.tokeninfo import TokenInfo

#: The cached arrays of one token by name, without the axes B and T.
Arrays = Mapping[str, Any]
Store = Any

#: The extras that a cache stores with each token, and their dtypes.
STORED_EXTRAS = {'prefix': jnp.bool_}

#: A slot beyond the end of any cache. Writes to it are dropped.
OUT_OF_RANGE = 1 << 30


@struct.dataclass
class Layered:
  """The store of one layer, as an index into the stores of all layers.

  A loop over layers carries the stores, so that a write changes only the new tokens. A loop that
  passes the store of each layer separately copies it.

  Attributes:
    stores: the stores of all layers, with a leading layer axis.
    layer: the index of the layer, int32.
  """

  stores: Store
  layer: jax.Array

  def read(self) -> Store:
    """Return the store of the layer."""
    at = lambda a: jax.lax.dynamic_index_in_dim(a, self.layer, keepdims=False)
    return jax.tree.map(at, self.stores)


@dataclasses.dataclass(frozen=True)
class Cache(Part):
  """Stores the per-token state of a layer, such as keys and values, during decoding.

  The mixer defines which arrays are cached (`Mixer.state`); the cache defines their layout. The
  tokens of a sequence are numbered from 0 in the order of arrival. Padding is not cached, so a
  sequence of n tokens takes n slots. Rewinding a sequence only lowers its count
  (`tfm.model.cache.rewind`): tokens from the count on are masked out, and the next tokens overwrite
  them.
  """

  def init(
    self, arrays: Arrays, B: int, S: int, lookback: int | None, extras: frozenset[str]
  ) -> Store:
    """Return an empty store.

    Args:
      arrays: the cached arrays of one token, as `jax.ShapeDtypeStruct`s by name.
      B: the batch size.
      S: the maximum length of a sequence, in tokens.
      lookback: the number of earlier positions that a query may attend to; None: all.
      extras: names of extras to store with the tokens. Only those in `STORED_EXTRAS` are stored.

    Returns:
      The store, a tree of arrays.
    """
    raise AssertionError(f'{type(self).__name__} must define init')

  def write(
    self,
    store: Store,
    new: dict[str, jax.Array],
    info: TokenInfo,
    count_B: jax.Array,
    lookback: int | None,
  ) -> tuple[dict[str, jax.Array], TokenInfo, Store]:
    """Store new tokens and return everything that they may attend to.

    Args:
      store: the store of the layer; if `in_place`, it may be a `Layered`.
      new: the arrays of the new tokens, `[B, T, ...]` by name.
      info: the new tokens.
      count_B: the number of cached tokens of each sequence before this call.
      lookback: as in `init`.

    Returns:
      (arrays, info, store): the arrays `[B, S, ...]` of earlier and new tokens in the dtypes of
      `new`, their token info, and the new store.
    """
    raise AssertionError(f'{type(self).__name__} must define write')

  def extend(
    self,
    cache: Any,
    new: dict[str, jax.Array],
    info: TokenInfo,
    count_B: jax.Array | None,
    lookback: int | None = None,
  ) -> tuple[dict[str, jax.Array], TokenInfo, Any]:
    """Apply `write` to the cache of a layer; without a cache, return the inputs.

    Args:
      cache: the cache of the layer, or None.
      new: the arrays of the new tokens, `[B, T, ...]` by name.
      info: the new tokens.
      count_B: the number of cached tokens of each sequence; None only without a cache.
      lookback: as in `init`.

    Returns:
      (arrays, info, cache) as in `write`.
    """
    if cache is None:
      return new, info, None
    assert count_B is not None
    seen, info, store = self.write(cache['tokens'], new, info, count_B, lookback)
    return seen, info, cache | {'tokens': store}

  def select(self, store: Store, index_B: jax.Array) -> Store:
    """Return a store in which sequence i is a copy of sequence `index_B[i]`.

    The result may have another batch size, and its sequences share no memory.
    """
    raise AssertionError(f'{type(self).__name__} must define select')

  def follow(self, store: Store, index_B: jax.Array, count_B: jax.Array) -> Store:
    """Return a store in which sequence i continues sequence `index_B[i]`, as in beam search.

    Unlike with `select`, sequences may share memory, so none may be rewound below `count_B`.

    Args:
      store: the store of the layer.
      index_B: int32, the source of each sequence. The batch size does not change.
      count_B: the number of cached tokens. It must equal that of the source.

    Returns:
      The new store.
    """
    return self.select(store, index_B)

  @property
  def block(self) -> int | None:
    """The number of tokens in a block that sequences may share; None: no sharing."""
    return None

  @property
  def blocks(self) -> int | None:
    """The number of blocks in the pool; None: enough to fill every sequence."""
    return None

  @property
  def roomy(self) -> 'Cache':
    """The same layout with enough blocks to fill every sequence."""
    return self

  @property
  def back(self) -> int | None:
    """The number of tokens by which a sequence may be rewound; None: any number."""
    return None

  @property
  def raw(self) -> 'Cache':
    """The layout that stores the arrays of `stored` without conversion."""
    return self

  def stored(self, arrays: Arrays) -> Arrays:
    """Return the arrays that represent `arrays` in memory."""
    return arrays

  @property
  def in_place(self) -> bool:
    """Whether `write` also takes and returns a `Layered` store."""
    return False

  @property
  def exact(self) -> bool:
    """Whether reads return the written values exactly."""
    return True

  def bytes(self, arrays: Arrays, S: int, lookback: int | None) -> int:
    """Return the bytes of one sequence, without its token info.

    Args:
      arrays: the cached arrays of one token, as `jax.ShapeDtypeStruct`s by name.
      S: the length of the sequence, in tokens.
      lookback: as in `init`.

    Returns:
      The size in bytes.
    """
    raise AssertionError(f'{type(self).__name__} must define bytes')


def nbytes(arrays: Arrays) -> int:
  """Return the bytes of the arrays of one token."""
  return sum(math.prod(a.shape) * jnp.dtype(a.dtype).itemsize for a in arrays.values())


def zeros(arrays: Arrays, lead: tuple[int, ...]) -> dict[str, jax.Array]:
  """Return zeros with the axes `lead` before the axes of one token."""
  return {name: jnp.zeros((*lead, *a.shape), a.dtype) for name, a in arrays.items()}


def swap_heads(a: jax.Array) -> jax.Array:
  """Return `[B, S, K, ...]` as `[B, K, S, ...]`, the stored layout, or the reverse.

  Arrays without heads are unchanged. In this layout the tokens of a head are contiguous, so
  attention reads them without a copy, which would cost ten times the product on a CPU. B and K are
  separate axes, so that a mesh can split both.
  """
  return jnp.swapaxes(a, 1, 2) if a.ndim > 3 else a


def token_major(arrays: dict[str, jax.Array], new: dict[str, jax.Array]) -> dict[str, jax.Array]:
  """Return stored arrays as `[B, S, ...]` in the dtypes of `new`, for attention."""
  return cast_like({name: swap_heads(a) for name, a in arrays.items()}, new)


def of_layer(store: Store) -> Store:
  """Return the store of one layer, given itself or a `Layered`."""
  return store.read() if isinstance(store, Layered) else store


def empty_info(lead: tuple[int, int], extras: frozenset[str]) -> TokenInfo:
  """Return the token info of padding, with the extras among `extras` that a cache stores."""
  # Separate arrays, so that the store can be donated.
  stored = {name: jnp.zeros(lead, dtype) for name, dtype in STORED_EXTRAS.items() if name in extras}
  return TokenInfo(jnp.zeros(lead, jnp.int32), jnp.zeros(lead, jnp.int32), stored)


def with_stored_extras(info: TokenInfo, stored: TokenInfo) -> TokenInfo:
  """Return `info` with the extras that `stored` has."""
  return info.only(tuple(stored.extras))


def slot_numbers(info: TokenInfo, count_B: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Return the index of each new token in its sequence, and the token counts after the call.

  The index of padding is `OUT_OF_RANGE` or more.
  """
  real_BT = info.segment_ids > 0
  T = real_BT.shape[1]
  number_BT = count_B[:, None] + jnp.cumsum(real_BT, axis=1, dtype=jnp.int32) - 1
  # Distinct indices, so that the scatter needs no order.
  beyond_BT = jnp.broadcast_to(OUT_OF_RANGE + jnp.arange(T, dtype=jnp.int32)[None], real_BT.shape)
  after_B = count_B + jnp.sum(real_BT, axis=1, dtype=jnp.int32)
  return jnp.where(real_BT, number_BT, beyond_BT), after_B


def scatter_tokens(old: Any, new: Any, slot_BT: jax.Array) -> Any:
  """Return stored arrays with the new tokens written to their slots, in the stored dtypes.

  Args:
    old: a tree of stored arrays, in the layout of `swap_heads`, or a `Layered` of such a tree.
    new: a tree of new arrays, `[B, T, ...]`.
    slot_BT: the slot of each new token. Slots beyond the last are dropped.

  Returns:
    `old` with the new tokens.
  """
  if isinstance(old, Layered):
    put = lambda stored, part: _scatter(stored, part, slot_BT, old.layer)
    return dataclasses.replace(old, stores=jax.tree.map(put, old.stores, new))
  return jax.tree.map(lambda stored, part: _scatter(stored, part, slot_BT), old, new)


def _scatter(
  stored: jax.Array, new: jax.Array, slot_BT: jax.Array, layer: jax.Array | None = None
) -> jax.Array:
  """Return one array with new tokens.

  Args:
    stored: `[B, S, ...]` or `[B, K, S, ...]`; with `layer`, with an axis of layers before these.
    new: `[B, T, ...]`.
    slot_BT: the slot of each new token.
    layer: the index of the layer to write; None: there is no axis of layers.

  Returns:
    The new array.
  """
  new = swap_heads(new)
  batch = new.shape[: 2 if new.ndim > 3 else 1]
  index = slot_BT.reshape(slot_BT.shape[0], *[1] * (len(batch) - 1), -1)
  index = jnp.broadcast_to(index, new.shape[: len(batch) + 1])[..., None]
  lead = 0 if layer is None else 1
  written: tuple[int, ...] = (lead + len(batch),)
  if layer is not None:
    index = jnp.concatenate([jnp.broadcast_to(layer, index.shape), index], axis=-1)
    written = (0, *written)
  # A batch axis of heads, because XLA's CPU compiler copies a store whose scatter has one index.
  numbers = jax.lax.ScatterDimensionNumbers(
    update_window_dims=tuple(range(len(batch) + 1, new.ndim)),
    inserted_window_dims=written,
    scatter_dims_to_operand_dims=written,
    operand_batching_dims=tuple(range(lead, lead + len(batch))),
    scatter_indices_batching_dims=tuple(range(len(batch))),
  )
  return jax.lax.scatter(
    stored, index, new.astype(stored.dtype), numbers,
    unique_indices=True, mode=jax.lax.GatherScatterMode.FILL_OR_DROP,
  )  # fmt: skip


def select_sequences(store: Any, index_B: jax.Array) -> Any:
  """Return the store of the sequences `index_B`."""
  return jax.tree.map(lambda a: a[index_B], store)


def mask_from(info: TokenInfo, number_BS: jax.Array, count_B: jax.Array) -> TokenInfo:
  """Return `info` with the tokens from number `count_B` on masked out.

  Args:
    info: stored tokens.
    number_BS: the index of each stored token in its sequence.
    count_B: the number of valid tokens of each sequence.

  Returns:
    A copy with segment id 0 for tokens that are masked out.
  """
  return dataclasses.replace(
    info, segment_ids=jnp.where(number_BS < count_B[:, None], info.segment_ids, 0)
  )


def cast_like(arrays: dict[str, jax.Array], new: dict[str, jax.Array]) -> dict[str, jax.Array]:
  """Return the arrays that `new` names, in the dtypes of `new`."""
  return {name: arrays[name].astype(a.dtype) for name, a in new.items()}
