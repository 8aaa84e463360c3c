"""Positions, segment ids and named extras of the tokens of a sequence."""

from collections.abc import Mapping
import dataclasses

from flax import struct
import jax
import jax.numpy as jnp


@struct.dataclass
class TokenInfo:
  """The token properties that attention masks and relative positions read.

  Attributes:
    positions: int32 `[B, T]`, counted from 0 within a document.
    segment_ids: int32 `[B, T]`, the index of the packed document, counted from 1; 0 is padding.
    extras: more arrays `[B, T, ...]` by name. Parts declare the names that they need in `reads`.

  Note:
    The extras in use are:

    - prefix: bool, tokens that every token of their document may attend to.
    - global: bool, tokens that attend to all tokens of their document and are attended to by all of
      them (Longformer).
    - type: int32, the token type (`token_type_ids` of BERT).
    - language: int32, the index of the language (`lang_ids` of X-MOD).
    - order, bound: int32, the rank of a token in the prediction order, and the first rank that is
      hidden from its query (XLNet).
    - block: int32, the block of a query, or the block that a key summarises (-1: the key is a
      token).
    - grid: int32 `[B, T, 2]`, the row and column of an image patch (-1: not a patch).
    - time: int32, the frame index of a video patch (-1: not a patch).
    - stream: int32, the index of the stream that a token of `embed=interleave` belongs to.
  """

  positions: jax.Array
  segment_ids: jax.Array
  extras: Mapping[str, jax.Array] = struct.field(default_factory=dict)

  def at(self, positions_BT: jax.Array) -> 'TokenInfo':
    """Return a copy with other positions, `[B, T]`."""
    return dataclasses.replace(self, positions=positions_BT)

  def get(self, name: str) -> jax.Array | None:
    """Return the extra `name`, or None if there is none."""
    return self.extras.get(name)

  def with_extras(self, **extras: jax.Array | None) -> 'TokenInfo':
    """Return a copy with extras added or replaced; None values are skipped."""
    given = {name: a for name, a in extras.items() if a is not None}
    return dataclasses.replace(self, extras={**self.extras, **given})

  def only(self, names: frozenset[str] | tuple[str, ...]) -> 'TokenInfo':
    """Return a copy that keeps only the named extras."""
    return dataclasses.replace(self, extras={n: a for n, a in self.extras.items() if n in names})

  def rows(self) -> 'TokenInfo':
    """Return the arrays as queries, `[B, T, 1, ...]`, to broadcast against `columns`."""
    return jax.tree.map(lambda a: a[:, :, None], self)

  def columns(self) -> 'TokenInfo':
    """Return the arrays as keys, `[B, 1, S, ...]`, to broadcast against `rows`."""
    return jax.tree.map(lambda a: a[:, None, :], self)


def positions(segment_BT: jax.Array) -> jax.Array:
  """Return the position of each token in its document, int32 `[B, T]`.

  A document is a run of equal segment ids.
  """
  B, T = segment_BT.shape
  index_BT = jnp.broadcast_to(jnp.arange(T, dtype=jnp.int32), (B, T))
  starts_BT = jnp.concatenate(
    [jnp.ones((B, 1), bool), segment_BT[:, 1:] != segment_BT[:, :-1]], axis=1
  )
  return index_BT - jax.lax.cummax(jnp.where(starts_BT, index_BT, 0), axis=1)


def with_grid(info: TokenInfo, grid: tuple[int, int], lead: int = 0, frames: int = 1) -> TokenInfo:
  """Return `info` with the extra `grid`, the row and column of each image patch.

  Args:
    info: the tokens, `[B, lead + frames * rows * columns]`.
    grid: the number of rows and columns of patches.
    lead: the number of special tokens before the patches. Their grid entries are -1.
    frames: the number of video frames. Patches are in the order of frames.

  Returns:
    A copy of `info` with `grid`, int32 `[B, T, 2]`.
  """
  h, w = grid
  rows, columns = jnp.meshgrid(
    jnp.arange(h, dtype=jnp.int32), jnp.arange(w, dtype=jnp.int32), indexing='ij'
  )
  at_T2 = jnp.tile(jnp.stack([rows.reshape(-1), columns.reshape(-1)], -1), (frames, 1))
  at_T2 = jnp.concatenate([jnp.full((lead, 2), -1, jnp.int32), at_T2])
  return info.with_extras(
    grid=jnp.broadcast_to(at_T2[None], (info.positions.shape[0], *at_T2.shape))
  )
