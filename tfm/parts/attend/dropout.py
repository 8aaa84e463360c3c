"""Dropout of attention's probabilities that every kernel draws alike, whatever tiles it works in."""

from flax import struct
import jax
import jax.numpy as jnp


@struct.dataclass
class Dropout:
  """What a probability is multiplied by: 0 at `rate`, else 1 / (1 - rate), by a hash of (row, head,
  query, key).

  `first` is the place in the row of the first query asked about. Where queries or keys have been
  put in another order, `query_BT` and `key_BS` are the places they had."""

  seed_BN: jax.Array
  rate: float = struct.field(pytree_node=False)
  first: int = struct.field(pytree_node=False, default=0)
  query_BT: jax.Array | None = None
  key_BS: jax.Array | None = None

  @classmethod
  def of(cls, key: jax.Array, B: int, N: int, rate: float) -> 'Dropout':
    """A draw for B rows of N heads."""
    return cls(jax.random.bits(key, (B, N), jnp.uint32), rate)

  def __call__(self, query_T: jax.Array, key_S: jax.Array) -> jax.Array:
    """float32 `[B, N, T, S]` for the places of queries and keys in their rows."""
    query_BT, key_BS = _places(self.query_BT, query_T + self.first), _places(self.key_BS, key_S)
    return factor(
      self.seed_BN[..., None, None], query_BT[:, None, :, None], key_BS[:, None, None], self.rate
    )


def _places(moved: jax.Array | None, at: jax.Array) -> jax.Array:
  """uint32 `[B or 1, at]`; what is asked about beyond the row is padding."""
  return (at[None] if moved is None else jnp.take(moved, at, axis=1, mode='clip')).astype(
    jnp.uint32
  )


def factor(seed: jax.Array, query: jax.Array, key: jax.Array, rate: float) -> jax.Array:
  """What probabilities are multiplied by, all of it in uint32 that broadcast."""
  row = _mixed(seed ^ (query * jnp.uint32(0x9E3779B1)))
  drawn = _mixed(row ^ (key * jnp.uint32(0x85EBCA77)))
  return jnp.where(drawn >= jnp.uint32(min(rate * 2**32, 2**32 - 1)), 1 / (1 - rate), 0.0)


def _mixed(x: jax.Array) -> jax.Array:
  """A permutation of the 32-bit numbers in which every bit turns on every other (MurmurHash3's last
  step).
  """
  x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
  x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
  return x ^ (x >> 16)
