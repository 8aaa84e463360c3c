"""Where a token stands: all that a mask or a relative position may know of it."""

from flax import struct
import jax
import jax.numpy as jnp


@struct.dataclass
class Site:
  """Positions, documents and prefix membership of tokens, each `[B, T]`.

  `pos` counts from 0 within a document. `segment` numbers the documents of a row from 1; 0 is padding. `prefix` is true
  for tokens that everybody in their document may see (`None`: there are none). `type` is a token's type, where layers
  are told. Where documents are predicted in an order, `order` is a token's place in it as a key, and `bound` the first
  place that is out of its sight as a query (`None`: there is no order). `block` is the number, in its document, of the
  block that a query belongs to or a key stands for (-1: it is a token), in layers that have some.
  """

  pos: jax.Array
  segment: jax.Array
  prefix: jax.Array | None = None
  type: jax.Array | None = None
  order: jax.Array | None = None
  bound: jax.Array | None = None
  block: jax.Array | None = None

  def rows(self) -> 'Site':
    """As queries: `[B, T, 1]`."""
    return jax.tree.map(lambda a: a[:, :, None], self)

  def columns(self) -> 'Site':
    """As keys: `[B, 1, S]`."""
    return jax.tree.map(lambda a: a[:, None, :], self)


def positions(segment_BT: jax.Array) -> jax.Array:
  """Each token's place in its document: documents are runs of one segment id. int32 `[B, T]`."""
  B, T = segment_BT.shape
  index_BT = jnp.broadcast_to(jnp.arange(T, dtype=jnp.int32), (B, T))
  starts_BT = jnp.concatenate([jnp.ones((B, 1), bool), segment_BT[:, 1:] != segment_BT[:, :-1]], axis=1)
  return index_BT - jax.lax.cummax(jnp.where(starts_BT, index_BT, 0), axis=1)
