"""Sequential blocks, the default unit of a segment."""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.core.axes import constrained
from tfm.parts.capture import HIDDEN, capture
from tfm.parts.context import Ctx, Dims
from tfm.parts.dropout import drop
from tfm.parts.residual.base import Residual
from tfm.parts.residual_layout.base import Branches
from tfm.parts.stored_names import named
from tfm.parts.unit.base import Unit


@dataclasses.dataclass(frozen=True)
class Blocks(Unit):
  """Sequence of blocks, each with a mixer, cross-attention and a feed-forward network.

  Each of the three is optional.
  """

  def make(self, pattern, dims):
    return BlocksModule(pattern, dims)


class BlocksModule(nn.Module):
  """Module of `Blocks`; with `only` it runs one block of the pattern (its index)."""

  pattern: tuple[Any, ...]
  dims: Dims
  only: int | None = None

  @nn.compact
  def __call__(
    self, x_BTD: jax.Array, carry: Any, ctx: Ctx, caches: Any
  ) -> tuple[jax.Array, Any, Any, Any]:
    ctx = dataclasses.replace(ctx, residual=ctx.residual or Residual())
    new_caches: list[Any] = []
    aux: Any = 0.0
    for i, spec in enumerate(self.pattern):
      if self.only not in (None, i):
        continue
      layer = None if ctx.layer is None else ctx.layer + i
      block = _Block(spec, self.dims, name=f'block_{i}')
      block_ctx = dataclasses.replace(ctx, layer=layer)
      cache = None if caches is None else caches[i]
      x_BTD, carry, cache, block_aux = block(x_BTD, carry, block_ctx, cache)
      new_caches.append(cache)
      aux = aux + block_aux
      x_BTD, carry = ctx.residual.after(x_BTD, carry, layer)
    return x_BTD, carry, None if caches is None else new_caches, aux


class _Block(nn.Module):
  spec: Any  # tfm.model.spec.Block
  dims: Dims

  @nn.compact
  def __call__(
    self, x_BTD: jax.Array, carry: Any, ctx: Ctx, cache: dict[str, Any] | None
  ) -> tuple[jax.Array, Any, Any, Any]:
    x_BTD = named(constrained(x_BTD, 'BTD'), 'residual')
    capture(self, HIDDEN, lambda: x_BTD)
    new_cache = dict[str, Any](cache or {})
    aux: list[Any] = []
    branches = self._branches(x_BTD, ctx, cache, new_cache, aux)
    layout = self.spec.residual_layout
    x_BTD, carry = ctx.residual.join(layout, x_BTD, carry, branches, self._norm(ctx), ctx)
    return constrained(x_BTD, 'BTD'), carry, None if cache is None else new_cache, sum(aux)

  def _branches(
    self, input_BTD, ctx: Ctx, cache, new_cache: dict[str, Any], aux: list[Any]
  ) -> Branches:
    """Return the branches of the block by name.

    When called, they add caches to `new_cache` and losses to `aux`.
    """
    s, dims = self.spec, self.dims.replace(rounding=self.spec.rounding)

    def update(y_BTD, name, post_norm, stream_BTD):
      y_BTD = y_BTD if post_norm is None else post_norm(y_BTD)
      scale = s.residual_scale.make(dims)
      if isinstance(scale, nn.Module):
        scale = scale.copy(name=f'{name}_gain')
      return Drop(s, dims, name=f'{name}_drop')(scale(y_BTD, stream_BTD, ctx), ctx)

    def mix(name, part, x_BTD, post_norm=None, stream_BTD=None):
      module = part.make(dims).copy(name=name)
      y_BTD, new_cache[name] = module(x_BTD, ctx, None if cache is None else cache[name])
      return update(named(y_BTD, 'mixer'), name, post_norm, stream_BTD)

    def feed_forward(name, part, x_BTD, post_norm=None, stream_BTD=None):
      y_BTD, ffn_aux = part.make(dims).copy(name=name)(x_BTD, ctx)
      aux.append(ffn_aux)
      return update(named(y_BTD, 'ffn'), name, post_norm, stream_BTD)

    def extra(*_):
      return extra_module(input_BTD, ctx, None if cache is None else {})[0]

    branches: Branches = {}
    for name, part in (('mixer', s.mixer), ('cross', s.cross)):
      if part is not None:
        branches[name] = functools.partial(mix, name, part)
    for name, part in s.ffns.items():
      branches[name] = functools.partial(feed_forward, name, part)
    for name, module in s.residual_layout.own(dims).items():
      branches[name] = module.copy(name=name)
    if s.extra_branch is not None:
      extra_module = s.extra_branch.make(dims).copy(name='aside')
      branches['aside'] = extra
    return branches

  def _norm(self, ctx: Ctx) -> Callable[[str], Callable[[jax.Array], jax.Array]]:
    """Return a function that makes the norm of a name, conditioned on `ctx.cond_BD` if needed."""
    norm, modules = self.spec.norm, dict[str, Any]()

    def make(name):
      if name not in modules:  # a residual layout may apply a norm twice
        modules[name] = norm.make(self.dims).copy(name=name)
      module = modules[name]
      if norm.conditioned:
        return lambda x_BTD: module(x_BTD, ctx.cond_BD)
      return module

    return make


class Drop(nn.Module):
  """Dropout of a branch, and stochastic depth, which drops whole branches of some examples."""

  spec: Any  # tfm.model.spec.Block
  dims: Dims

  @nn.compact
  def __call__(self, y_BTD: jax.Array, ctx: Ctx) -> jax.Array:
    y_BTD = drop(y_BTD, self.spec.dropout, ctx.train, self)
    if not ctx.train or not self.spec.drop_path:
      return y_BTD
    assert ctx.layer is not None
    stay = 1 - self.spec.drop_path * (ctx.layer + 1).astype(jnp.float32) / self.dims.depth
    keep_B11 = jax.random.bernoulli(self.make_rng('dropout'), stay, (y_BTD.shape[0], 1, 1))
    return jnp.where(keep_B11, y_BTD / stay.astype(y_BTD.dtype), 0)
