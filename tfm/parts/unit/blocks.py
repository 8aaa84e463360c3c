"""The usual unit: the blocks of the pattern, one after the other."""

from collections.abc import Callable
import dataclasses
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
from tfm.parts.unit.base import Unit


@dataclasses.dataclass(frozen=True)
class Blocks(Unit):
  """Every block of the pattern in order, each with mixer, cross-attention and feed-forward as far
  as it has them.
  """

  def make(self, pattern, dims):
    return BlocksModule(pattern, dims)


class BlocksModule(nn.Module):
  """See `Unit`. With `only` the module is one block of the pattern (its index)."""

  pattern: tuple[Any, ...]
  dims: Dims
  only: int | None = None

  @nn.compact
  def __call__(
    self, x_BTD: jax.Array, carry: Any, ctx: Ctx, caches: Any
  ) -> tuple[jax.Array, Any, Any, Any]:
    ctx = dataclasses.replace(ctx, residual=ctx.residual or Residual())
    kept: list[Any] = []
    aux: Any = 0.0
    for i, spec in enumerate(self.pattern):
      if self.only not in (None, i):
        continue
      layer = None if ctx.layer is None else ctx.layer + i
      block = _Block(spec, self.dims, name=f'block_{i}')
      x_BTD, carry, cache, a = block(
        x_BTD, carry, dataclasses.replace(ctx, layer=layer), None if caches is None else caches[i]
      )
      kept, aux = kept + [cache], aux + a
      x_BTD, carry = ctx.residual.after(x_BTD, carry, layer)
    return x_BTD, carry, None if caches is None else kept, aux


class _Block(nn.Module):
  spec: Any  # tfm.model.spec.Block
  dims: Dims

  @nn.compact
  def __call__(
    self, x_BTD: jax.Array, carry: Any, ctx: Ctx, cache: dict[str, Any] | None
  ) -> tuple[jax.Array, Any, Any, Any]:
    x_BTD = constrained(x_BTD, 'BTD')
    capture(self, HIDDEN, lambda: x_BTD)
    kept = dict[str, Any](cache or {})
    aux: list[Any] = []
    branches = self._branches(x_BTD, ctx, cache, kept, aux)
    x_BTD, carry = ctx.residual.join(
      self.spec.residual_layout, x_BTD, carry, branches, self._norm(ctx)
    )
    return constrained(x_BTD, 'BTD'), carry, None if cache is None else kept, sum(aux)

  def _branches(
    self, entered_BTD, ctx: Ctx, cache, kept: dict[str, Any], aux: list[Any]
  ) -> Branches:
    """Return the branches of the block by name; they add to `kept` (caches) and `aux` (losses) when
    called.
    """
    s, dims = self.spec, self.dims

    def out(y_BTD, name, then, stream_BTD):
      y_BTD = y_BTD if then is None else then(y_BTD)
      residual_scale = s.residual_scale.make(dims)
      residual_scale = (
        residual_scale.copy(name=f'{name}_gain')
        if isinstance(residual_scale, nn.Module)
        else residual_scale
      )
      return Drop(s, dims, name=f'{name}_drop')(residual_scale(y_BTD, stream_BTD, ctx), ctx)

    def mix(name, part, x_BTD, then, stream_BTD):
      y_BTD, kept[name] = part.make(dims).copy(name=name)(
        x_BTD, ctx, None if cache is None else cache[name]
      )
      return out(y_BTD, name, then, stream_BTD)

    def feed(name, part, x_BTD, then, stream_BTD):
      y_BTD, a = part.make(dims).copy(name=name)(x_BTD, ctx)
      aux.append(a)
      return out(y_BTD, name, then, stream_BTD)

    branches: Branches = {}
    for name, part in (('mixer', s.mixer), ('cross', s.cross)):
      if part is not None:
        branches[name] = lambda x, then=None, stream=None, n=name, p=part: mix(
          n, p, x, then, stream
        )
    for name, part in s.ffns.items():
      branches[name] = lambda x, then=None, stream=None, n=name, p=part: feed(n, p, x, then, stream)
    if (extra_branch := s.extra_branch) is not None:
      alone = extra_branch.make(dims).copy(name='aside')
      branches['aside'] = lambda *_: alone(entered_BTD, ctx, None if cache is None else {})[0]
    return branches

  def _norm(self, ctx: Ctx) -> Callable[[str], Callable[[jax.Array], jax.Array]]:
    """Return a function that makes the norm of a name, which is conditioned on `ctx.cond_BD` if its
    kind is.
    """
    norm, made = self.spec.norm, dict[str, Any]()

    def make(name):
      if name not in made:  # a residual_layout may apply a norm twice
        made[name] = norm.make(self.dims).copy(name=name)
      module = made[name]
      return (lambda x_BTD: module(x_BTD, ctx.cond_BD)) if norm.conditioned else module

    return make


class Drop(nn.Module):
  """Dropout of a branch, and of whole branches of some examples (stochastic depth), in training."""

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
