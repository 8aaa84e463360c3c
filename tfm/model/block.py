"""One repeat of a segment's pattern, as a module: what the scan repeats."""

from typing import Any

from flax import linen as nn
import jax

from tfm.core.axes import constrained
from tfm.model.embedding import drop
from tfm.model.spec import Block
from tfm.parts.context import Ctx, Dims


class Unit(nn.Module):
  """`(x_BTD, ctx, caches) -> (x_BTD, caches, aux)` through every block of the pattern."""

  pattern: tuple[Block, ...]
  dims: Dims

  @nn.compact
  def __call__(self, x_BTD: jax.Array, ctx: Ctx, caches: Any) -> tuple[jax.Array, Any, Any]:
    kept: list[Any] = []
    aux: Any = 0.0
    for i, spec in enumerate(self.pattern):
      block = _Block(spec, self.dims, name=f'block_{i}')
      x_BTD, cache, a = block(x_BTD, ctx, None if caches is None else caches[i])
      kept, aux = kept + [cache], aux + a
    return x_BTD, None if caches is None else kept, aux


class _Block(nn.Module):
  spec: Block
  dims: Dims

  @nn.compact
  def __call__(self, x_BTD: jax.Array, ctx: Ctx, cache: dict[str, Any] | None) -> tuple[jax.Array, Any, Any]:
    s, dims = self.spec, self.dims
    x_BTD = constrained(x_BTD, 'BTD')
    kept: dict[str, Any] = {}
    aux: list[Any] = []

    def branch_out(y_BTD):
      return drop(y_BTD, s.dropout, ctx.train, self)

    def mix(x_BTD, name, part):
      y_BTD, kept[name] = part.make(dims).copy(name=name)(x_BTD, ctx, None if cache is None else cache[name])
      return branch_out(y_BTD)

    def feed(x_BTD):
      y_BTD, a = s.ffn.make(dims).copy(name='ffn')(x_BTD, ctx)
      aux.append(a)
      return branch_out(y_BTD)

    branches = {'mixer': lambda x: mix(x, 'mixer', s.mixer)}
    if (cross := s.cross) is not None:
      branches['cross'] = lambda x: mix(x, 'cross', cross)
    branches['ffn'] = feed
    x_BTD = s.wiring(x_BTD, branches, lambda name: s.norm.make(dims).copy(name=name))
    return constrained(x_BTD, 'BTD'), None if cache is None else kept, sum(aux)
