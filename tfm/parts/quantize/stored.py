"""Weights that are stored quantized, for inference and for adapters on frozen weights."""

from collections.abc import Sequence
import math
from typing import Any, Self

from flax import struct
import jax
import jax.numpy as jnp

from tfm.parts.grouped import grouped_product
from tfm.parts.quantize.products import quantized, qwix
from tfm.parts.stored import Stored

_TRANSPOSED = (((1,), (1,)), ((), ()))


@struct.dataclass
class Quantized(Stored):
  """A weight in a number format of qwix. It is dequantized to the dtype of x for each product.

  Attributes:
    w_oi: `qwix.QArray` of the weight as a matrix; bfloat16 scales if there are several per output,
      else float32.
    out: the shape of the output axes.
  """

  w_oi: Any
  out: tuple[int, ...] = struct.field(pytree_node=False)

  @classmethod
  def of(cls, w: jax.Array, n_in: int, form: str, tile: int | None) -> Self:
    """Return the stored form of a weight.

    Args:
      w: weight; its first `n_in` axes are inputs.
      n_in: number of input axes.
      form: name of the number format.
      tile: number of inputs that share a scale. None: all.
    """
    out = w.shape[n_in:]
    return cls(_small(quantized(w.reshape(-1, math.prod(out)).T, form, 1, tile)), out)

  @classmethod
  def joined(cls, weights: Sequence[Self]) -> Self:
    whole = jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *[w.w_oi for w in weights])
    return cls(whole, (whole.shape[0],))

  def contract(self, x: jax.Array, n_in: int = 1) -> jax.Array:
    lead = x.shape[: x.ndim - n_in]
    x_ri = x.reshape(math.prod(lead), -1)
    y_ro = qwix().dot_general(x_ri, self.w_oi.astype(x.dtype), _TRANSPOSED)
    return y_ro.reshape(*lead, *self.out)

  def rows(self, index: jax.Array, dtype: jnp.dtype) -> jax.Array:
    taken = jax.tree.map(lambda a: a[index], self.w_oi)
    return qwix().dequantize(taken.astype(dtype))

  def by_output(self, dtype: jnp.dtype) -> jax.Array:
    return qwix().dequantize(self.w_oi.astype(dtype)).reshape(*self.out, -1)


@struct.dataclass
class QuantizedExperts(Stored):
  """The matrices of experts in a number format of qwix.

  Attributes:
    w_Eio: `qwix.QArray` of the matrices, with scales as in `Quantized`.
  """

  w_Eio: Any

  @classmethod
  def of(cls, w_Eio: jax.Array, form: str, tile: int | None) -> Self:
    """Return the stored form of one matrix per expert."""
    return cls(_small(quantized(w_Eio, form, 1, tile)))

  def grouped(self, x_ri: jax.Array, sizes_E: jax.Array) -> jax.Array:
    return grouped_product(x_ri, qwix().dequantize(self.w_Eio.astype(x_ri.dtype)), sizes_E)


def _small(w: Any) -> Any:
  """Return a quantized array with scales in bfloat16 if they take much memory."""
  axis = w.ndim - (1 if w.ndim == 2 else 2)
  return w.astype(jnp.bfloat16) if w.scale.shape[axis] > 1 else w
