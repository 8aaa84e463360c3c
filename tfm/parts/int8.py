"""Weights of one byte a number, for decoding, where reading them is what takes the time."""

from collections.abc import Sequence
import math
from typing import Self

from flax import struct
import jax
import jax.numpy as jnp

from tfm.parts.stored import Stored, against

#: Rows of x up to which, on a CPU, x is made bytes; with more of them the weight is widened.
_FEW = 32

#: How many outputs of a weight are widened at a time.
_PIECE = 1024


@struct.dataclass
class Int8(Stored):
  """W[o, i] = q[o, i] scale[o], in place of a weight: q int8 `[out, in]`.

  `out` are the sizes of the output axes that the rows stand for.
  """

  q: jax.Array
  scale: jax.Array
  out: tuple[int, ...] = struct.field(pytree_node=False)

  @classmethod
  def joined(cls, weights: Sequence[Self]) -> Self:
    q_oi, scale_o = (jnp.concatenate(arrays) for arrays in zip(*((w.q, w.scale) for w in weights), strict=True))
    return cls(q_oi, scale_o, scale_o.shape)

  def contract(self, x: jax.Array, n_in: int = 1) -> jax.Array:
    lead = x.shape[: x.ndim - n_in]
    x_ri = x.reshape(math.prod(lead), -1)
    on_cpu = _by_halves if len(x_ri) <= _FEW else _in_pieces
    y_ro = jax.lax.platform_dependent(x_ri, self.q, cpu=on_cpu, default=_at_once)
    return (y_ro * self.scale.astype(x.dtype)[None]).reshape(*lead, *self.out)

  def rows(self, index: jax.Array, dtype: jnp.dtype) -> jax.Array:
    return self.q[index].astype(dtype) * self.scale[index].astype(dtype)[..., None]

  def by_output(self, dtype: jnp.dtype) -> jax.Array:
    return (self.q.astype(dtype) * self.scale.astype(dtype)[:, None]).reshape(*self.out, -1)


def quantize(w: jax.Array, n_in: int) -> Int8:
  """w, its first `n_in` axes the inputs, to the nearest of 255 steps up to each output's largest weight."""
  out = w.shape[n_in:]
  w_oi = w.astype(jnp.float32).reshape(-1, math.prod(out)).T
  scale_o = jnp.max(jnp.abs(w_oi), axis=1) / 127
  return Int8(jnp.round(w_oi / jnp.where(scale_o > 0, scale_o, 1)[:, None]).astype(jnp.int8), scale_o, out)


def _by_halves(x_ri: jax.Array, q_oi: jax.Array) -> jax.Array:
  """Each number of x is (128 high + low) times its row's scale, both a byte: a step is 1 / 16256 of the largest.

  *Why*: XLA's CPU compiler multiplies bytes nearly as fast as it reads them, if there are two rows or more, where
  widening the weight takes three times as long.
  """
  x32_ri = x_ri.astype(jnp.float32)
  scale_r1 = jnp.max(jnp.abs(x32_ri), axis=1, keepdims=True) / (127 * 128)
  whole_ri = jnp.round(x32_ri / jnp.where(scale_r1 > 0, scale_r1, 1))
  high_ri = jnp.round(whole_ri / 128)
  halves = jnp.concatenate([high_ri, whole_ri - 128 * high_ri]).astype(jnp.int8)
  y = jax.lax.dot_general(halves, q_oi, (((1,), (1,)), ((), ())), preferred_element_type=jnp.int32)
  high_ro, low_ro = jnp.split(y.astype(jnp.float32), 2)
  return ((128 * high_ro + low_ro) * scale_r1).astype(x_ri.dtype)


def _in_pieces(x_ri: jax.Array, q_oi: jax.Array) -> jax.Array:
  """As `_at_once`, some outputs at a time: XLA's CPU compiler would widen all weights of a program before it begins."""
  O = len(q_oi)
  pieces = max(2, -(-O // _PIECE))
  n = -(-O // pieces)

  def one(i: jax.Array, y_ro: jax.Array) -> jax.Array:
    start = jnp.minimum(i * n, O - n)  # the last piece may say again what the one before said
    part_rn = _at_once(x_ri, jax.lax.dynamic_slice_in_dim(q_oi, start, n))
    return jax.lax.dynamic_update_slice_in_dim(y_ro, part_rn, start, 1)

  return jax.lax.fori_loop(0, pieces, one, jnp.zeros((len(x_ri), O), x_ri.dtype))


def _at_once(x_ri: jax.Array, q_oi: jax.Array) -> jax.Array:
  return against(x_ri, q_oi.astype(x_ri.dtype))
