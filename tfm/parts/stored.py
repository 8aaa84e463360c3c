"""Weights laid out for decoding, in place of the arrays that training keeps: rows are outputs."""

from collections.abc import Sequence
import itertools
import math
from typing import Any, Self

from flax import struct
import jax
import jax.numpy as jnp


class Stored:
  """What a projection asks of a weight that `tfm.generate.prepare` has laid out anew."""

  def contract(self, x: jax.Array, n_in: int = 1) -> jax.Array:
    """x W over the last `n_in` axes of x, in x's dtype."""
    raise AssertionError(f'{type(self).__name__} must contract')

  def rows(self, index: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """W[index] in `dtype`, for a table that is looked up."""
    raise AssertionError(f'{type(self).__name__} must give rows')

  def by_output(self, dtype: jnp.dtype) -> jax.Array:
    """W itself in `dtype`, its output axes before its inputs."""
    raise AssertionError(f'{type(self).__name__} must give itself back')

  @classmethod
  def joined(cls, weights: Sequence[Any]) -> 'Stored':
    """One weight with the outputs of all of these, which are of this class, after one another."""
    raise AssertionError(f'{cls.__name__} must join')


@struct.dataclass
class Joined:
  """The weights of several projections of one input as one: their outputs after one another, those
  of each `outs`.

  It stands where the first one's weight would; the others have none.

  *Why*: small products take as long to start as to compute, and on accelerators one is one kernel.
  """

  whole: Stored
  outs: tuple[tuple[int, ...], ...] = struct.field(pytree_node=False)

  def products(self, x: jax.Array) -> list[jax.Array]:
    """x W of each, over the last axis of x."""
    y = self.whole.contract(x)
    ends = list(itertools.accumulate(map(math.prod, self.outs)))
    parts = jnp.split(y, ends[:-1], axis=-1)
    return [part.reshape(*x.shape[:-1], *out) for part, out in zip(parts, self.outs, strict=True)]


@struct.dataclass
class Rows(Stored):
  """W[o, i], the inputs innermost, in the dtype it came in.

  *Why*: XLA's CPU compiler reads it at two to three times the rate of the other order when x has
  few rows."""

  w_oi: jax.Array
  out: tuple[int, ...] = struct.field(pytree_node=False)

  @classmethod
  def of(cls, w: jax.Array, n_in: int) -> Self:
    """w, its first `n_in` axes the inputs."""
    out = w.shape[n_in:]
    return cls(w.reshape(-1, math.prod(out)).T, out)

  @classmethod
  def joined(cls, weights: Sequence[Self]) -> Self:
    w_oi = jnp.concatenate([w.w_oi for w in weights])
    return cls(w_oi, (len(w_oi),))

  def contract(self, x: jax.Array, n_in: int = 1) -> jax.Array:
    lead = x.shape[: x.ndim - n_in]
    return against(x.reshape(math.prod(lead), -1), self.w_oi.astype(x.dtype)).reshape(
      *lead, *self.out
    )

  def rows(self, index: jax.Array, dtype: jnp.dtype) -> jax.Array:
    return self.w_oi[index].astype(dtype)

  def by_output(self, dtype: jnp.dtype) -> jax.Array:
    return self.w_oi.astype(dtype).reshape(*self.out, -1)


def against(x_ri: jax.Array, w_oi: jax.Array) -> jax.Array:
  """x W^T. One row alone is a matrix times a vector, which XLA's CPU compiler reads at the memory's
  bandwidth.
  """
  if x_ri.shape[0] == 1:
    return (w_oi @ x_ri[0])[None]
  return jax.lax.dot_general(x_ri, w_oi, (((1,), (1,)), ((), ())))


def sum_dtype(x: jax.Array) -> jnp.dtype:
  """Return the dtype in which products of x are summed: at least float32."""
  return jnp.promote_types(x.dtype, jnp.float32)
