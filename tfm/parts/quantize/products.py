"""Products of quantized arrays, with straight-through gradients, by qwix."""

import functools
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tfm.core import errors
from tfm.parts import grouped as grouped_lib
from tfm.parts.contract import contract_gradients, matrix


class Formats(NamedTuple):
  """Number formats of the operands of a product; None leaves an operand as it is.

  Attributes:
    weights: format of the weight.
    inputs: format of the input.
    gradients: format of the gradient of the output.
    tile: number of inputs that share a scale in the forward pass.
  """

  weights: str
  inputs: str | None
  gradients: str | None
  tile: int | None


def qwix() -> ModuleType:
  """Return the module qwix, which is an optional dependency."""
  try:
    import qwix
  except ImportError as error:
    raise errors.UserError(
      'quantize: qwix is not installed. Expected pip install "tfm[quantize]".'
    ) from error
  return qwix


def quantized(x: jax.Array, form: str | None, axis: int, tile: int | None = None) -> Any:
  """Return a quantized copy of an array.

  Args:
    x: the array.
    form: name of the number format; None returns `x`.
    axis: the axis whose entries share scales.
    tile: number of entries that share a scale. None: the whole axis.

  Returns:
    A `qwix.QArray` with float32 scales.

  Raises:
    UserError: `tile` does not divide the axis, or qwix is not installed.
  """
  if form is None:
    return x
  if tile is not None and x.shape[axis] % tile:
    raise errors.UserError(
      f'quantize: tile={tile} does not divide {x.shape[axis]} inputs of a projection. '
      'Expected a divisor, tile=none, or targets without this projection.'
    )
  others = [i for i in range(x.ndim) if i != axis % x.ndim]
  tiles = {axis % x.ndim: tile} if tile is not None else {}
  return qwix().quantize(x.astype(jnp.float32), form, channelwise_axes=others, tiled_axes=tiles)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def contract(x: jax.Array, w: jax.Array, n_in: int, formats: Formats) -> jax.Array:
  """Multiply quantized activations by a quantized weight.

  Args:
    x: activations. The last `n_in` axes are contracted.
    w: weight. The first `n_in` axes are contracted.
    n_in: number of contracted axes.
    formats: number formats of the operands, forward and backward.

  Returns:
    An array in the dtype of `x`, with the other axes of `x`, then the other axes of `w`.
  """
  f = formats
  x2, w2 = matrix(x, x.ndim - n_in), matrix(w, n_in)
  y = _dot(x2, w2, 1, 0, (f.inputs, f.weights), f.tile)
  return y.reshape(*x.shape[: x.ndim - n_in], *w.shape[n_in:])


def _backward(n_in, f, residuals, g):
  x, w = residuals
  if f.gradients is None:
    return contract_gradients(x, w, g, n_in)
  x2, w2, g2 = matrix(x, x.ndim - n_in), matrix(w, n_in), matrix(g, x.ndim - n_in)
  dx = _dot(g2, w2, 1, 1, (f.gradients, f.weights))
  dw = _dot(x2, g2, 0, 0, (f.inputs, f.gradients))
  return dx.reshape(x.shape), dw.reshape(w.shape)


contract.defvjp(lambda x, w, n_in, f: (contract(x, w, n_in, f), (x, w)), _backward)


def _dot(
  a: jax.Array, b: jax.Array, axis_a: int, axis_b: int, forms: tuple[str | None, str | None],
  tile: int | None = None,
) -> jax.Array:  # fmt: skip
  """Return the product of two matrices over an axis of each, in the dtype of `a`."""
  qa, qb = quantized(a, forms[0], axis_a, tile), quantized(b, forms[1], axis_b, tile)
  if None in forms:  # a product in the dtype of `a`
    qa, qb = qa.astype(a.dtype), qb.astype(a.dtype)
  return qwix().dot_general(qa, qb, (((axis_a,), (axis_b,)), ((), ()))).astype(a.dtype)


def rounded(x: jax.Array, form: str | None, axis: int, tile: int | None = None) -> jax.Array:
  """Return the values of `quantized(x, ...)` in the dtype of `x`."""
  return x if form is None else qwix().dequantize(quantized(x, form, axis, tile)).astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def grouped(x_ri: jax.Array, w_Eio: jax.Array, sizes_E: jax.Array, formats: Formats) -> jax.Array:
  """Multiply each run of rows by the matrix of its expert, with values rounded to the formats.

  The product is computed in the dtype of `x_ri`. No backend multiplies ragged groups of 8-bit
  numbers with a scale per expert.

  Args:
    x_ri: the rows, ordered by expert.
    w_Eio: one matrix per expert.
    sizes_E: int32, the number of rows of each expert.
    formats: number formats of the operands, forward and backward.

  Returns:
    y_ro, in the dtype of x.
  """
  f = formats
  return grouped_lib.grouped_product(
    rounded(x_ri, f.inputs, 1, f.tile), rounded(w_Eio, f.weights, 1, f.tile), sizes_E
  )


def _grouped_backward(f, residuals, g_ro):
  x_ri, w_Eio, sizes_E = residuals
  gradients = lambda x, w, g: jax.vjp(
    lambda x, w: grouped_lib.grouped_product(x, w, sizes_E), x, w
  )[1](g)
  if f.gradients is None:
    return *gradients(x_ri, w_Eio, g_ro), None
  dx_ri, _ = gradients(x_ri, rounded(w_Eio, f.weights, 2), rounded(g_ro, f.gradients, 1))
  _, dw_Eio = gradients(rounded(x_ri, f.inputs, 0), w_Eio, rounded(g_ro, f.gradients, 0))
  return dx_ri, dw_Eio, None


grouped.defvjp(lambda x, w, sizes, f: (grouped(x, w, sizes, f), (x, w, sizes)), _grouped_backward)
