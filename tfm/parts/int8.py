"""Weights of one byte a number, for decoding, where reading them is what takes the time."""

import math

from flax import struct
import jax
import jax.numpy as jnp

from tfm.parts.stored import Stored, against

#: Bytes of a block of rows once it is widened to float32: it must stay in a core's own cache.
_BLOCK = 3 << 17


@struct.dataclass
class Int8(Stored):
  """W[o, i] = q[o, i] scale[o], in place of a weight: rows are outputs, in blocks of n (int8 `[blocks, n, in]`).

  `out` are the sizes of the output axes that the rows stand for.
  """

  q: jax.Array
  scale: jax.Array
  out: tuple[int, ...] = struct.field(pytree_node=False)

  def contract(self, x: jax.Array, n_in: int = 1) -> jax.Array:
    lead = x.shape[: x.ndim - n_in]
    x_ri = x.reshape(math.prod(lead), -1)
    y_rno = jax.lax.platform_dependent(x_ri, self.q, cpu=_by_block, default=_at_once)
    y_ro = y_rno[:, : math.prod(self.out)] * self.scale.astype(x.dtype)[None]
    return y_ro.reshape(*lead, *self.out)

  def rows(self, index: jax.Array, dtype: jnp.dtype) -> jax.Array:
    n = self.q.shape[1]
    return self.q[index // n, index % n].astype(dtype) * self.scale[index].astype(dtype)[..., None]

  def by_output(self, dtype: jnp.dtype) -> jax.Array:
    q_oi = self.q.reshape(-1, self.q.shape[-1])[: self.scale.shape[0]]
    return (q_oi.astype(dtype) * self.scale.astype(dtype)[:, None]).reshape(*self.out, -1)


def quantize(w: jax.Array, n_in: int) -> Int8:
  """w, its first `n_in` axes the inputs, to the nearest of 255 steps up to each output's largest weight."""
  out = w.shape[n_in:]
  w_oi = w.astype(jnp.float32).reshape(-1, math.prod(out)).T
  scale_o = jnp.max(jnp.abs(w_oi), axis=1) / 127
  q_oi = jnp.round(w_oi / jnp.where(scale_o > 0, scale_o, 1)[:, None]).astype(jnp.int8)
  O, I = q_oi.shape
  n = 1 << (max(1, min(_BLOCK // (4 * I), O)).bit_length() - 1)
  return Int8(jnp.pad(q_oi, ((0, -O % n), (0, 0))).reshape(-1, n, I), scale_o, out)


def _by_block(x_ri: jax.Array, q_bni: jax.Array) -> jax.Array:
  # XLA's CPU compiler would write the whole widened weight to memory first, and read that.
  y_brn = jax.lax.map(lambda q_ni: _at_once(x_ri, q_ni[None]), q_bni)
  return jnp.moveaxis(y_brn, 0, 1).reshape(x_ri.shape[0], -1)


def _at_once(x_ri: jax.Array, q_bni: jax.Array) -> jax.Array:
  return against(x_ri, q_bni.reshape(-1, q_bni.shape[-1]).astype(x_ri.dtype))
