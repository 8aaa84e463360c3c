"""A scan whose backward pass recomputes the inputs of reversible blocks from their outputs
(arXiv:1707.04585).
"""

from collections.abc import Callable, Iterator
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from tfm.core.closures import convert
from tfm.model.loops.base import Body, Carry, Layers
from tfm.parts.context import Ctx


@dataclasses.dataclass(frozen=True)
class _Step:
  """A residual under which a block adds up nothing: what it writes is what step `number` of its
  residual_layout gives.
  """

  number: int

  def join(self, residual_layout, x_BTD, carry, branches, norm):
    return residual_layout.steps(branches, norm)[self.number](x_BTD), carry

  def after(self, x_BTD, carry, layer):
    return x_BTD, carry


def _nothing(*args):
  return args[0]


def _steps(unit: Any, ctx: Ctx) -> Iterator[Callable[..., tuple[jax.Array, jax.Array]]]:
  """The steps of the unit's blocks, in order, each `(params, key, number, x_BTD) -> (y_BTD, aux)`."""
  compute = unit.dims.run.precision.dtype('compute')

  def step(i, j, params, key, number, x_BTD):
    own, rngs = (
      dataclasses.replace(ctx, layer=number, residual=_Step(j)),
      {} if key is None else {'dropout': key},
    )
    out: Any = unit.clone(only=i).apply(
      {'params': params}, x_BTD.astype(compute), (), own, None, rngs=rngs
    )
    y_BTD, _, _, aux = out
    return y_BTD.astype(x_BTD.dtype), jnp.asarray(aux, jnp.float32)

  for i, block in enumerate(unit.pattern):
    names = [
      name
      for name in ('mixer', 'cross', 'ffn', 'second_ffn', 'extra_branch')
      if getattr(block, name) is not None
    ]
    for j in range(len(block.residual_layout.steps(dict.fromkeys(names, _nothing), _nothing))):
      yield lambda *args, i=i, j=j: step(i, j, *args)


def reversible(body: Body, unit: Any, ctx: Ctx, carry: Carry, layers: Layers) -> tuple[Carry, Any]:
  """Run the repeats as a scan whose gradient needs only the streams that it ends with.

  The outputs beside the carry (captured activations, expert loads) have no gradient.

  Cost: forward twice and backward once, in the memory of one block. Dropout is repeated from its
  keys."""
  params_L, _, keys_L, number_L = each = tuple(layers)
  unroll = len(number_L) if unit.dims.run.loop == 'unroll' else 1
  run = lambda carry, layers: jax.lax.scan(body, carry, layers, unroll=unroll)
  first = jax.tree.map(lambda a: a[0], (params_L, keys_L, number_L))
  forward, *seen = convert(run, carry, each)
  steps, smooth, fixed = zip(
    *(convert(s, *first, carry[0]) for s in _steps(unit, ctx)), strict=True
  )

  @jax.custom_vjp
  def undone(carry, layers, seen, smooth, fixed):
    return forward(*seen, carry, layers)

  def keep(carry, layers, seen, smooth, fixed):
    (x_BTD, other_BTD, aux), ys = forward(*seen, carry, layers)
    return ((x_BTD, other_BTD, aux), ys), (x_BTD, other_BTD, layers, smooth, fixed)

  def back(kept, given):
    x_BTD, other_BTD, (params_L, _, keys_L, number_L), smooth, fixed = kept
    (dx_BTD, dother_BTD, daux), _ = given
    start = (x_BTD, other_BTD, dx_BTD, dother_BTD, jax.tree.map(jnp.zeros_like, smooth))
    undo = lambda state, layer: _undo(steps, smooth, fixed, daux, state, layer)
    state, dparams_L = jax.lax.scan(
      undo, start, (params_L, keys_L, number_L), reverse=True, unroll=unroll
    )
    _, _, dx_BTD, dother_BTD, dsmooth = state
    return (dx_BTD, dother_BTD, daux), (dparams_L, None, None, None), None, dsmooth, None

  undone.defvjp(keep, back)
  return undone(carry, each, seen, smooth, fixed)


def _undo(steps, smooth, fixed, daux, state, layer):
  """One repeat backwards: its steps undone from the last, and what its parameters' gradients are."""
  x_BTD, other_BTD, dx_BTD, dother_BTD, dsmooth = state
  params, key, number = layer
  dparams, dsmooth = jax.tree.map(jnp.zeros_like, params), list(dsmooth)
  for i in reversed(range(len(steps))):
    # It read `other` and added what it made of it to the stream that is now x.
    step = lambda p, h_BTD, c, i=i: steps[i](c, fixed[i], p, key, number, h_BTD)
    (y_BTD, _), pull = jax.vjp(step, params, other_BTD, smooth[i])
    dp, dh_BTD, dc = pull((dx_BTD, daux))
    x_BTD, other_BTD = other_BTD, x_BTD - y_BTD
    dx_BTD, dother_BTD = dother_BTD + dh_BTD, dx_BTD
    dparams, dsmooth[i] = jax.tree.map(jnp.add, dparams, dp), jax.tree.map(jnp.add, dsmooth[i], dc)
  return (x_BTD, other_BTD, dx_BTD, dother_BTD, tuple(dsmooth)), dparams
