"""One repeat of a segment's pattern, as a module: what the scan repeats."""

import dataclasses
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.core.axes import constrained
from tfm.model.embedding import drop
from tfm.model.spec import Block
from tfm.parts.context import Ctx, Dims
from tfm.parts.residual.base import Residual
from tfm.parts.tell import HIDDEN, tell
from tfm.parts.wiring.base import Branches


class Unit(nn.Module):
  """`(x_BTD, carry, ctx, caches) -> (x_BTD, carry, caches, aux)` through every block of the pattern.

  `carry` travels beside the stream, as the stack's residual says; `ctx.layer` is the number of the first block. With
  `only` the unit is one block of the pattern.
  """

  pattern: tuple[Block, ...]
  dims: Dims
  only: int | None = None

  @nn.compact
  def __call__(self, x_BTD: jax.Array, carry: Any, ctx: Ctx, caches: Any) -> tuple[jax.Array, Any, Any, Any]:
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
  spec: Block
  dims: Dims

  @nn.compact
  def __call__(
    self, x_BTD: jax.Array, carry: Any, ctx: Ctx, cache: dict[str, Any] | None
  ) -> tuple[jax.Array, Any, Any, Any]:
    s, dims = self.spec, self.dims
    x_BTD = constrained(x_BTD, 'BTD')
    tell(self, HIDDEN, lambda: x_BTD)
    entered_BTD, kept = x_BTD, dict[str, Any]()
    aux: list[Any] = []

    def branch_out(y_BTD, name, then):
      y_BTD = y_BTD if then is None else then(y_BTD)
      gain = s.gain.make(dims)
      y_BTD = (gain.copy(name=f'{name}_gain') if isinstance(gain, nn.Module) else gain)(y_BTD)
      return Drop(s, dims, name=f'{name}_drop')(y_BTD, ctx)

    def mix(x_BTD, then, name, part):
      y_BTD, kept[name] = part.make(dims).copy(name=name)(x_BTD, ctx, None if cache is None else cache[name])
      return branch_out(y_BTD, name, then)

    def feed(x_BTD, then=None):
      y_BTD, a = s.ffn.make(dims).copy(name='ffn')(x_BTD, ctx)
      aux.append(a)
      return branch_out(y_BTD, 'ffn', then)

    branches: Branches = {'mixer': lambda x, then=None: mix(x, then, 'mixer', s.mixer)}
    if (cross := s.cross) is not None:
      branches['cross'] = lambda x, then=None: mix(x, then, 'cross', cross)
    branches['ffn'] = feed
    if (aside := s.aside) is not None:
      alone = aside.make(dims).copy(name='aside')
      branches['aside'] = lambda _: alone(entered_BTD, ctx, None if cache is None else {})[0]
    norm = lambda name: s.norm.make(dims).copy(name=name)
    x_BTD, carry = ctx.residual.join(s.wiring, x_BTD, carry, branches, norm)
    return constrained(x_BTD, 'BTD'), carry, None if cache is None else kept, sum(aux)


class Drop(nn.Module):
  """A branch in training: some numbers left out, and in some rows all of it. Its keys are those of its name."""

  spec: Block
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
