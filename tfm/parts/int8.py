"""Weights in int8 for decoding, which is limited by the bandwidth of reading weights."""

from collections.abc import Sequence
import math
from typing import Self

from flax import struct
import jax
import jax.numpy as jnp

from tfm.parts.cpu import int8 as cpu
from tfm.parts.stored import Stored, matmul_transposed


@struct.dataclass
class Int8(Stored):
  """An int8 weight with a scale per output, W[o, i] = q[o, i] scale[o].

  Attributes:
    q: quantized values, int8 `[out, in]`.
    scale: float32 `[out]`.
    out: sizes of the output axes that are merged to `out`.
  """

  q: jax.Array
  scale: jax.Array
  out: tuple[int, ...] = struct.field(pytree_node=False)

  @classmethod
  def joined(cls, weights: Sequence[Self]) -> Self:
    q_oi = jnp.concatenate([w.q for w in weights])
    scale_o = jnp.concatenate([w.scale for w in weights])
    return cls(q_oi, scale_o, scale_o.shape)

  def contract(self, x: jax.Array, n_in: int = 1) -> jax.Array:
    lead = x.shape[: x.ndim - n_in]
    x_ri = x.reshape(math.prod(lead), -1)
    y_ro = jax.lax.platform_dependent(x_ri, self.q, cpu=cpu.product, default=_converted)
    return (y_ro * self.scale.astype(x.dtype)[None]).reshape(*lead, *self.out)

  def rows(self, index: jax.Array, dtype: jnp.dtype) -> jax.Array:
    return self.q[index].astype(dtype) * self.scale[index].astype(dtype)[..., None]

  def by_output(self, dtype: jnp.dtype) -> jax.Array:
    return (self.q.astype(dtype) * self.scale.astype(dtype)[:, None]).reshape(*self.out, -1)


def quantize(w: jax.Array, n_in: int) -> Int8:
  """Quantize a weight to int8, with a scale per output.

  Args:
    w: weight; its first `n_in` axes are inputs.
    n_in: number of input axes.

  Returns:
    Values from -127 to 127; 127 is the largest absolute weight of each output.
  """
  out = w.shape[n_in:]
  w_oi = w.astype(jnp.float32).reshape(-1, math.prod(out)).T
  scale_o = jnp.max(jnp.abs(w_oi), axis=1) / 127
  divisor_o = jnp.where(scale_o > 0, scale_o, 1)
  return Int8(jnp.round(w_oi / divisor_o[:, None]).astype(jnp.int8), scale_o, out)


def _converted(x_ri: jax.Array, q_oi: jax.Array) -> jax.Array:
  return matmul_transposed(x_ri, q_oi.astype(x_ri.dtype))
