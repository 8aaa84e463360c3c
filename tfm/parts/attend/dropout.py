"""Dropout of attention probabilities that does not depend on the tiles of a kernel."""

from flax import struct
import jax
import jax.numpy as jnp


@struct.dataclass
class Dropout:
  """Dropout factors from a hash of (sequence, head, query, key): 0 or 1 / (1 - rate).

  Attributes:
    seed_BN: a seed for each sequence and head.
    rate: the probability of 0.
    first: the index in the sequence of query 0 of a call.
    query_BT: the original index of each query, if queries were reordered.
    key_BS: the original index of each key, if keys were reordered.
  """

  seed_BN: jax.Array
  rate: float = struct.field(pytree_node=False)
  first: int = struct.field(pytree_node=False, default=0)
  query_BT: jax.Array | None = None
  key_BS: jax.Array | None = None

  @classmethod
  def of(cls, key: jax.Array, B: int, N: int, rate: float) -> 'Dropout':
    """Return dropout with random seeds.

    Args:
      key: a random key.
      B: the batch size.
      N: the number of query heads.
      rate: the dropout rate.

    Returns:
      The dropout.
    """
    return cls(jax.random.bits(key, (B, N), jnp.uint32), rate)

  def __call__(self, query_T: jax.Array, key_S: jax.Array) -> jax.Array:
    """Return the factors, float32 `[B, N, T, S]`, for indices of queries and keys."""
    query_BT, key_BS = _places(self.query_BT, query_T + self.first), _places(self.key_BS, key_S)
    return factor(
      self.seed_BN[..., None, None], query_BT[:, None, :, None], key_BS[:, None, None], self.rate
    )


def _places(moved: jax.Array | None, at: jax.Array) -> jax.Array:
  """Return original indices, uint32 `[B or 1, n]`; those beyond the sequence are padding."""
  places = at[None] if moved is None else jnp.take(moved, at, axis=1, mode='clip')
  return places.astype(jnp.uint32)


def factor(seed: jax.Array, query: jax.Array, key: jax.Array, rate: float) -> jax.Array:
  """Return dropout factors from uint32 arrays that broadcast.

  Args:
    seed: the seed of the sequence and head.
    query: indices of queries.
    key: indices of keys.
    rate: the dropout rate.

  Returns:
    float32 of the broadcast shape: 0 at `rate`, else 1 / (1 - rate).
  """
  row = _finalised(seed ^ (query * jnp.uint32(0x9E3779B1)))
  drawn = _finalised(row ^ (key * jnp.uint32(0x85EBCA77)))
  return jnp.where(drawn >= jnp.uint32(min(rate * 2**32, 2**32 - 1)), 1 / (1 - rate), 0.0)


def _finalised(x: jax.Array) -> jax.Array:
  """Return the finaliser of MurmurHash3, a bijection of 32-bit integers."""
  x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
  x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
  return x ^ (x >> 16)
