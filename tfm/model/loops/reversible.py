"""A scan over reversible blocks, which recomputes inputs from outputs in the backward pass.

The gradient stores only the final residual streams (RevNet, arXiv:1707.04585).
"""

from collections.abc import Callable, Iterator
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from tfm.core.closures import convert
from tfm.model.loops.base import Body, Carry, Layers
from tfm.parts.context import Ctx
from tfm.parts.residual_layout.base import Branches, ResidualLayout


@dataclasses.dataclass(frozen=True)
class _Step:
  """A residual kind that returns the update of one residual step, instead of adding it.

  Attributes:
    number: The index of the step in the block's residual layout.
  """

  number: int

  def join(
    self,
    residual_layout: ResidualLayout,
    x_BTD: jax.Array,
    carry: Any,
    branches: Branches,
    norm: Callable[[str], Any],
    ctx: Ctx,
  ) -> tuple[jax.Array, Any]:
    return residual_layout.steps(branches, norm)[self.number](x_BTD), carry

  def after(self, x_BTD: jax.Array, carry: Any, layer: Any) -> tuple[jax.Array, Any]:
    return x_BTD, carry


def _first_argument(*args: Any) -> Any:
  return args[0]


def _steps(unit: Any, ctx: Ctx) -> Iterator[Callable[..., tuple[jax.Array, jax.Array]]]:
  """Yield the residual steps of a unit's blocks: `(params, key, number, x_BTD) -> (y_BTD, aux)`."""
  compute = unit.dims.run.precision.dtype('compute')

  def step(
    i: int, j: int, params: Any, key: jax.Array | None, number: jax.Array, x_BTD: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    step_ctx = dataclasses.replace(ctx, layer=number, residual=_Step(j))
    rngs = {} if key is None else {'dropout': key}
    block = unit.clone(only=i)
    x = x_BTD.astype(compute)
    out: Any = block.apply({'params': params}, x, (), step_ctx, None, rngs=rngs)
    y_BTD, _, _, aux = out
    return y_BTD.astype(x_BTD.dtype), jnp.asarray(aux, jnp.float32)

  for i, block in enumerate(unit.pattern):
    kinds = ('mixer', 'cross', 'ffn', 'second_ffn', 'extra_branch')
    branches = {kind: _first_argument for kind in kinds if getattr(block, kind) is not None}
    for j in range(len(block.residual_layout.steps(branches, _first_argument))):
      yield lambda *args, i=i, j=j: step(i, j, *args)


def reversible(body: Body, unit: Any, ctx: Ctx, carry: Carry, layers: Layers) -> tuple[Carry, Any]:
  """Run the repeats as a scan that stores only its final residual streams; a `Loop`.

  The backward pass computes each block twice forward and once backward, in the memory of one block.
  Dropout is repeated from its keys. Outputs besides the carry (captured activations, expert loads)
  have no gradient.

  Args:
    body: One repeat.
    unit: The module that `body` applies.
    ctx: The context that `body` applies it with.
    carry: The initial carry.
    layers: The inputs of the repeats, without caches.

  Returns:
    (the final carry, the outputs of `body` stacked over repeats).
  """
  params_L, _, keys_L, number_L = each = tuple(layers)
  unroll = len(number_L) if unit.dims.run.loop == 'unroll' else 1
  run = lambda carry, layers: jax.lax.scan(body, carry, layers, unroll=unroll)
  first = jax.tree.map(lambda a: a[0], (params_L, keys_L, number_L))
  forward, *closed_over = convert(run, carry, each)
  converted = [convert(step, *first, carry[0]) for step in _steps(unit, ctx)]
  steps, smooth, fixed = zip(*converted, strict=True)

  @jax.custom_vjp
  def run_reversible(carry: Any, layers: Any, closed_over: Any, smooth: Any, fixed: Any) -> Any:
    return forward(*closed_over, carry, layers)

  def forward_rule(carry: Any, layers: Any, closed_over: Any, smooth: Any, fixed: Any) -> Any:
    (x_BTD, other_BTD, aux), ys = forward(*closed_over, carry, layers)
    return ((x_BTD, other_BTD, aux), ys), (x_BTD, other_BTD, layers, smooth, fixed)

  def backward_rule(residuals: Any, cotangents: Any) -> tuple[Any, ...]:
    x_BTD, other_BTD, (params_L, _, keys_L, number_L), smooth, fixed = residuals
    (dx_BTD, dother_BTD, daux), _ = cotangents
    start = (x_BTD, other_BTD, dx_BTD, dother_BTD, jax.tree.map(jnp.zeros_like, smooth))
    one = lambda state, layer: _reverse(steps, smooth, fixed, daux, state, layer)
    repeats = (params_L, keys_L, number_L)
    state, dparams_L = jax.lax.scan(one, start, repeats, reverse=True, unroll=unroll)
    _, _, dx_BTD, dother_BTD, dsmooth = state
    return (dx_BTD, dother_BTD, daux), (dparams_L, None, None, None), None, dsmooth, None

  run_reversible.defvjp(forward_rule, backward_rule)
  result: tuple[Carry, Any] = run_reversible(carry, each, closed_over, smooth, fixed)
  return result


def _reverse(
  steps: Any, smooth: Any, fixed: Any, daux: jax.Array, state: Any, layer: Any
) -> tuple[Any, Any]:
  """Reverse one repeat, from its last step, and return (state, gradients of its parameters)."""
  x_BTD, other_BTD, dx_BTD, dother_BTD, dsmooth = state
  params, key, number = layer
  dparams, dsmooth = jax.tree.map(jnp.zeros_like, params), list(dsmooth)
  for i in reversed(range(len(steps))):
    # The step read `other` and added its output to the stream that is now x.
    step = lambda p, h_BTD, c, i=i: steps[i](c, fixed[i], p, key, number, h_BTD)
    (y_BTD, _), pull = jax.vjp(step, params, other_BTD, smooth[i])
    dp, dh_BTD, dc = pull((dx_BTD, daux))
    x_BTD, other_BTD = other_BTD, x_BTD - y_BTD
    dx_BTD, dother_BTD = dother_BTD + dh_BTD, dx_BTD
    dparams, dsmooth[i] = jax.tree.map(jnp.add, dparams, dp), jax.tree.map(jnp.add, dsmooth[i], dc)
  return (x_BTD, other_BTD, dx_BTD, dother_BTD, tuple(dsmooth)), dparams
