"""The projection every part is made of: y = x W + b over named axes."""

from collections.abc import Callable
import math
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.core.axes import sharded, trailing
from tfm.core.module import Module
from tfm.parts.context import Dims
from tfm.parts.contract import contract, matrix
from tfm.parts.grouped import grouped_product
from tfm.parts.rounding.base import Rounding
from tfm.parts.stored import Joined, Stored


class Dense(Module):
  """y = x W + b, contracting the last `n_in` axes of x with the first `n_in` of W.

  `letters` names W's axes ('DNH' with n_in=1; 'NHD' with n_in=2). The weight keeps the run's
  parameter dtype and is cast to x's. `role` (by default the module's name) tells the init what the
  weight is for, and the model's adapter whether to add to it.

  The rounding of a block (`Dims.rounding`) applies to x and W. Weights that `tfm.generate.prepare`
  has laid out are rounded already.

  Given `product`, which is x W, only what comes after it is done.

  Given `sizes_E` it is a projection of each of E experts, on a leading axis E of W and b, and the
  rows of x are each expert's in turn."""

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
    if sizes_E is not None:
      return self._of_experts(x, sizes_E)
    dtype = self.dims.run.precision.dtype('param')
    y = self._product(x, dtype) if product is None else product
    if (adapter := self.dims.adapter).wraps(self.role or self.name or ''):
      y = y + adapter.make(self.letters, self.shape, self.n_in, self.dims)(x)
    if self.bias:
      zeros = sharded(nn.initializers.zeros, self.letters[self.n_in :])
      y = y + trailing(
        self.param('bias', zeros, self.shape[self.n_in :], dtype).astype(x.dtype), y.ndim
      )
    return y

  def _product(self, x: jax.Array, dtype: Any) -> jax.Array:
    n_in, n_out = math.prod(self.shape[: self.n_in]), math.prod(self.shape[self.n_in :])
    init = self.dims.init.weight(self.role or self.name or '', n_in, n_out, self.dims)
    kernel = weight(self, 'kernel', sharded(init, self.letters), self.shape, dtype)
    rounding = self.rounding
    if isinstance(kernel, Stored):
      return kernel.contract(rounding.inputs(x, self.n_in), self.n_in)
    if self.is_initializing():  # nobody asks what it makes of x
      return jnp.zeros((*x.shape[: x.ndim - self.n_in], *self.shape[self.n_in :]), x.dtype)
    return contract(
      rounding.inputs(x, self.n_in), rounding.weight(kernel).astype(x.dtype), self.n_in
    )

  @property
  def rounding(self) -> Rounding:
    """The rounding of its inputs and its weight."""
    found = self.dims.rounding
    return found if found.wraps(self.role or self.name or '') else Rounding()

  def _of_experts(self, x: jax.Array, sizes_E: jax.Array) -> jax.Array:
    dtype, E = self.dims.run.precision.dtype('param'), len(sizes_E)
    (n_in, n_out), rounding = self.shape, self.rounding
    x_ri = rounding.inputs(matrix(x, x.ndim - 1))
    init = self.dims.init.weight(self.role or self.name or '', n_in, n_out, self.dims)
    kernel = self.param('kernel', sharded(_each(init), f'E{self.letters}'), (E, n_in, n_out), dtype)
    zeros = sharded(nn.initializers.zeros, f'E{self.letters[1:]}')
    bias = self.param('bias', zeros, (E, n_out), dtype) if self.bias else None
    if self.is_initializing():
      return jnp.zeros((*x.shape[:-1], n_out), x.dtype)
    y_ro = grouped_product(x_ri, rounding.weight(kernel, 1).astype(x.dtype), sizes_E)
    if bias is not None:
      # As a product its gradient is one too, and no scatter.
      y_ro = y_ro + grouped_product(
        jnp.ones_like(x_ri[:, :1]), bias.astype(x.dtype)[:, None], sizes_E
      )
    return y_ro.reshape(*x.shape[:-1], n_out)


def together(
  x: jax.Array, *projections: Dense, sizes_E: jax.Array | None = None
) -> list[jax.Array]:
  """What each makes of x, by one product where `tfm.generate.prepare` has joined their weights."""
  first = projections[0]
  kernel = (
    first.get_variable('params', 'kernel') if first.has_variable('params', 'kernel') else None
  )
  if not isinstance(kernel, Joined):
    return [project(x, sizes_E) for project in projections]
  products = kernel.products(first.rounding.inputs(x))
  return [project(x, product=y) for project, y in zip(projections, products, strict=True)]


def _each(init: Callable[..., Any]) -> Callable[..., Any]:
  """The initializer of a stack of weights, each drawn by itself."""
  return lambda key, shape, dtype: jax.vmap(lambda k: init(k, shape[1:], dtype))(
    jax.random.split(key, shape[0])
  )


def weight(
  module: nn.Module, name: str, init: Callable[..., Any], shape: tuple[int, ...], dtype: Any
) -> Any:
  """The module's parameter `name`: an array, or what `tfm.generate.prepare` has put in its place."""
  if module.has_variable('params', name):
    found: Any = module.get_variable('params', name)
    if isinstance(found, Stored):  # flax would compare its arrays' shapes with the parameter's
      return found
  return module.param(name, init, shape, dtype)
