"""The linear projection y = x W + b, over named axes."""

from collections.abc import Callable
import math
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from tfm.core.axes import sharded, trailing
from tfm.core.module import Module
from tfm.parts.context import Dims
from tfm.parts.contract import matrix
from tfm.parts.grouped import grouped_product
from tfm.parts.quantize.base import Quantize
from tfm.parts.rounding.base import Rounding
from tfm.parts.stored import Joined, Stored


class Dense(Module):
  """Linear projection y = x W + b of the last `n_in` axes of x.

  The weight is stored in the parameter dtype of the run and cast to the dtype of x.

  Attributes:
    letters: axes of W, such as 'DNH' (`n_in` 1) or 'NHD' (`n_in` 2).
    shape: sizes of these axes.
    dims: sizes and settings of the model.
    n_in: number of axes of W that are inputs; they come first.
    bias: add b.
    role: purpose of the weight, which selects its initializer and adapter. Default: the name of the
      module.
  """

  letters: str
  shape: tuple[int, ...]
  dims: Dims
  n_in: int = 1
  bias: bool = False
  role: str | None = None

  @nn.compact
  def __call__(
    self, x: jax.Array, sizes_E: jax.Array | None = None, product: jax.Array | None = None
  ) -> jax.Array:
    """Return the projection of `x`.

    Args:
      x: input; its last `n_in` axes are contracted.
      sizes_E: number of tokens of each of E experts. The weights then have a leading axis E, and
        `x` holds the tokens of the experts in turn.
      product: x W if it is already known. Only the adapter and the bias are added to it.

    Returns:
      The leading axes of `x`, then the output axes of W.
    """
    if sizes_E is not None:
      return self._of_experts(x, sizes_E)
    dtype = self.dims.run.precision.dtype('param')
    y = self._product(x, dtype) if product is None else product
    if (adapter := self.dims.adapter).wraps(self.role or self.name or ''):
      y = y + adapter.make(self.letters, self.shape, self.n_in, self.dims)(x)
    if self.bias:
      zeros = sharded(nn.initializers.zeros, self.letters[self.n_in :])
      bias = self.param('bias', zeros, self.shape[self.n_in :], dtype)
      y = y + trailing(bias.astype(x.dtype), y.ndim)
    return y

  def _product(self, x: jax.Array, dtype: DTypeLike) -> jax.Array:
    n_in, n_out = math.prod(self.shape[: self.n_in]), math.prod(self.shape[self.n_in :])
    init = self.dims.init.weight(self.role or self.name or '', n_in, n_out, self.dims)
    kernel = weight(self, 'kernel', sharded(init, self.letters), self.shape, dtype)
    rounding = self.rounding
    if isinstance(kernel, Stored):
      return kernel.contract(rounding.inputs(x, self.n_in), self.n_in)
    if self.is_initializing():  # only the shape of the result is used
      return jnp.zeros((*x.shape[: x.ndim - self.n_in], *self.shape[self.n_in :]), x.dtype)
    return self.quantize.contract(
      rounding.inputs(x, self.n_in), rounding.weight(kernel).astype(x.dtype), self.n_in
    )

  @property
  def rounding(self) -> Rounding:
    """Return the rounding of inputs and weight, with which prepared weights are rounded already."""
    found = self.dims.rounding
    return found if found.wraps(self.role or self.name or '') else Rounding()

  @property
  def quantize(self) -> Quantize:
    """Return the quantization of the product, which does not apply to stored weights."""
    found = self.dims.run.quantize
    return found if found.wraps(self.role or self.name or '') else Quantize()

  def _of_experts(self, x: jax.Array, sizes_E: jax.Array) -> jax.Array:
    dtype, E = self.dims.run.precision.dtype('param'), len(sizes_E)
    (n_in, n_out), rounding = self.shape, self.rounding
    x_ri = rounding.inputs(matrix(x, x.ndim - 1))
    init = self.dims.init.weight(self.role or self.name or '', n_in, n_out, self.dims)
    init = sharded(_each(init), f'E{self.letters}')
    kernel = weight(self, 'kernel', init, (E, n_in, n_out), dtype)
    zeros = sharded(nn.initializers.zeros, f'E{self.letters[1:]}')
    bias = self.param('bias', zeros, (E, n_out), dtype) if self.bias else None
    if self.is_initializing():
      return jnp.zeros((*x.shape[:-1], n_out), x.dtype)
    if isinstance(kernel, Stored):
      y_ro = kernel.grouped(x_ri, sizes_E)
    else:
      y_ro = self.quantize.grouped(x_ri, rounding.weight(kernel, 1).astype(x.dtype), sizes_E)
    if bias is not None:
      # A product has a product as its gradient; an indexed read would have a scatter.
      ones_r1 = jnp.ones_like(x_ri[:, :1])
      y_ro = y_ro + grouped_product(ones_r1, bias.astype(x.dtype)[:, None], sizes_E)
    return y_ro.reshape(*x.shape[:-1], n_out)


def project_jointly(
  x: jax.Array, *projections: Dense, sizes_E: jax.Array | None = None
) -> list[jax.Array]:
  """Return the output of several projections of one input.

  If `tfm.generate.prepare` has joined their weights, this is one product.

  Args:
    x: the input of all projections.
    *projections: `Dense` modules with equal input axes.
    sizes_E: number of tokens of each expert, as in `Dense`.

  Returns:
    One array per projection, in order.
  """
  kernel: Any = None
  if projections[0].has_variable('params', 'kernel'):
    kernel = projections[0].get_variable('params', 'kernel')
  if not isinstance(kernel, Joined):
    return [project(x, sizes_E) for project in projections]
  products = kernel.products(projections[0].rounding.inputs(x))
  return [project(x, product=y) for project, y in zip(projections, products, strict=True)]


def _each(init: Callable[..., Any]) -> Callable[..., Any]:
  """Return an initializer of stacked weights that draws each weight with its own key."""

  def stacked_init(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
    draw = jax.vmap(lambda k: init(k, shape[1:], dtype))
    return draw(jax.random.split(key, shape[0]))

  return stacked_init


def weight(
  module: nn.Module, name: str, init: Callable[..., Any], shape: tuple[int, ...], dtype: DTypeLike
) -> Any:
  """Return the parameter `name` of a module, creating it if necessary.

  Args:
    module: the owner of the parameter.
    name: name of the parameter.
    init: initializer `(key, shape, dtype)`.
    shape: shape of the parameter.
    dtype: dtype of the parameter.

  Returns:
    An array, or the `Stored` form that `tfm.generate.prepare` has put in its place.
  """
  if module.has_variable('params', name):
    value: Any = module.get_variable('params', name)
    if isinstance(value, Stored):  # `module.param` would reject the shapes of its arrays
      return value
  return module.param(name, init, shape, dtype)
