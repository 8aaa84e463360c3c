"""Weight layouts for decoding, with output features as the first axis."""

from collections.abc import Sequence
import itertools
import math
from typing import Any, Self

from flax import struct
import jax
import jax.numpy as jnp

from tfm.parts.cpu import dense


class Stored:
  """A weight in another layout or format, as `tfm.generate.prepare` or `tfm.quantize` makes it."""

  def contract(self, x: jax.Array, n_in: int = 1) -> jax.Array:
    """Return x W, contracted over the last `n_in` axes of x, in the dtype of x.

    Args:
      x: the input, `[..., *inputs]`.
      n_in: the number of input axes.

    Returns:
      An array `[..., *outputs]`.
    """
    raise AssertionError(f'{type(self).__name__} must define contract')

  def rows(self, index: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Return W[index] in `dtype`, for embedding tables."""
    raise AssertionError(f'{type(self).__name__} must define rows')

  def by_output(self, dtype: jnp.dtype) -> jax.Array:
    """Return W in `dtype` with its output axes before its input axes."""
    raise AssertionError(f'{type(self).__name__} must define by_output')

  def grouped(self, x_ri: jax.Array, sizes_E: jax.Array) -> jax.Array:
    """Return x W of experts, with the arguments of `grouped_product`."""
    raise AssertionError(f'{type(self).__name__} must define grouped')

  @classmethod
  def joined(cls, weights: Sequence[Any]) -> 'Stored':
    """Return one weight with the outputs of all `weights` concatenated."""
    raise AssertionError(f'{cls.__name__} must define joined')


@struct.dataclass
class Joined:
  """Several projections of the same input, fused into one weight.

  The fused weight replaces the first of the projections in the parameter tree; the others have
  none. One larger product avoids the launch cost of several small ones.

  Attributes:
    whole: the fused weight.
    outs: the output shape of each projection, in the order of concatenation.
  """

  whole: Stored
  outs: tuple[tuple[int, ...], ...] = struct.field(pytree_node=False)

  def products(self, x: jax.Array) -> list[jax.Array]:
    """Return x W of each projection, contracted over the last axis of x."""
    y = self.whole.contract(x)
    ends = list(itertools.accumulate(map(math.prod, self.outs)))
    parts = jnp.split(y, ends[:-1], axis=-1)
    return [part.reshape(*x.shape[:-1], *out) for part, out in zip(parts, self.outs, strict=True)]


@struct.dataclass
class Rows(Stored):
  """W[o, i] with the input features contiguous, in the dtype of the given weight.

  When x has few rows, the CPU compiler of XLA reads this layout two to three times as fast as W[i,
  o].

  Attributes:
    w_oi: the weight as a matrix.
    out: the shape of the output axes.
  """

  w_oi: jax.Array
  out: tuple[int, ...] = struct.field(pytree_node=False)

  @classmethod
  def of(cls, w: jax.Array, n_in: int) -> Self:
    """Return the stored form of `w`; its first `n_in` axes are the inputs."""
    out = w.shape[n_in:]
    return cls(w.reshape(-1, math.prod(out)).T, out)

  @classmethod
  def joined(cls, weights: Sequence[Self]) -> Self:
    w_oi = jnp.concatenate([w.w_oi for w in weights])
    return cls(w_oi, (len(w_oi),))

  def contract(self, x: jax.Array, n_in: int = 1) -> jax.Array:
    lead = x.shape[: x.ndim - n_in]
    y = matmul_transposed(x.reshape(math.prod(lead), -1), self.w_oi.astype(x.dtype))
    return y.reshape(*lead, *self.out)

  def rows(self, index: jax.Array, dtype: jnp.dtype) -> jax.Array:
    return self.w_oi[index].astype(dtype)

  def by_output(self, dtype: jnp.dtype) -> jax.Array:
    return self.w_oi.astype(dtype).reshape(*self.out, -1)


def matmul_transposed(x_ri: jax.Array, w_oi: jax.Array) -> jax.Array:
  """Return x W^T.

  A single row is multiplied as a vector, which XLA's CPU compiler does at memory bandwidth. For a
  few more rows a CPU has its own form.
  """
  if x_ri.shape[0] == 1:
    return (w_oi @ x_ri[0])[None]
  if dense.has_few_rows(x_ri):
    return jax.lax.platform_dependent(x_ri, w_oi, cpu=dense.product, default=_transposed)
  return _transposed(x_ri, w_oi)


def _transposed(x_ri: jax.Array, w_oi: jax.Array) -> jax.Array:
  return jax.lax.dot_general(x_ri, w_oi, (((1,), (1,)), ((), ())))


def sum_dtype(x: jax.Array) -> jnp.dtype:
  """Return the dtype in which products of x are summed: at least float32."""
  return jnp.promote_types(x.dtype, jnp.float32)
