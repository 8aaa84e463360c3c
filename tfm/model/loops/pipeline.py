"""A loop over repeats, with parameters split over the pipeline stages of a mesh."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tfm.core import errors
from tfm.core.axes import constrained, device_count, split_axes
from tfm.model.loops.base import Body, Carry, Layers
from tfm.model.loops.scan import scan, unroll
from tfm.parts.context import Ctx, Pipeline

#: The fields of `Ctx` with a batch axis.
_OF_BATCH = ('info', 'towers', 'cond_BD', 'layered_BTLR')


def bubble(stages: int, microbatches: int, rounds: int = 1) -> float:
  """Return the share of time in which a stage has no work, (S - 1) / (R M + S - 1).

  Args:
    stages: S, the number of stages.
    microbatches: M, the number of micro-batches.
    rounds: R, the number of times that a micro-batch passes through all stages.

  Example:
    >>> [round(bubble(4, m, r), 2) for m, r in ((4, 1), (16, 1), (16, 4))]
    [0.43, 0.16, 0.04]
  """
  return (stages - 1) / (rounds * microbatches + stages - 1)


def pipeline(body: Body, unit: Any, ctx: Ctx, carry: Carry, layers: Layers) -> tuple[Carry, Any]:
  """Run the repeats as a pipeline over the mesh axes of layers (GPipe, arXiv:1811.06965); a `Loop`.

  The batch is cut into M micro-batches. In each of R M + S - 1 steps, each of S stages runs one
  micro-batch through its layers, and all results move to the next stage (collective-permute). With
  R rounds a stage holds R groups of layers, and each micro-batch passes R times through all stages
  (the interleaved schedule of arXiv:2104.04473), which divides the idle share `bubble`. Layers are
  stored in order, so R > 1 also redistributes the parameters in every step.

  The gradient runs all micro-batches forward, then all backward. It stores what the
  rematerialisation policy keeps of each step. Inputs and outputs of the pipeline are whole on every
  stage. Dropout differs between micro-batches. Auxiliary losses are means over micro-batches, as
  with `optim.accumulate`.

  Args:
    body: One repeat.
    unit: The module of a repeat, with the options of the pipeline.
    ctx: The context of the whole batch.
    carry: The initial carry.
    layers: The inputs of the repeats, without caches.

  Returns:
    (the final carry, (no caches, the sown collections stacked over repeats)).

  Raises:
    UserError: The model cannot run as a pipeline, or the batch or the layers cannot be divided.
  """
  x_BTD, extra, aux = carry
  _check(ctx, extra, layers)
  plan = _Schedule.of(unit.dims.run.pipeline, len(layers.number), x_BTD.shape[0])
  by_stage = jax.tree.map(plan.by_stage, layers._replace(caches=None))
  batch = x_BTD.shape[0]
  of_batch = {name: getattr(ctx, name) for name in _OF_BATCH}
  micro = jax.tree.map(lambda a: plan.split(a, batch), of_batch)
  stage = lambda *args: _run_stage(plan, body, unit, ctx, *args)
  run = jax.vmap(stage, in_axes=(1, None, 0, 0), spmd_axis_name=plan.names)
  number_S = jnp.arange(plan.stages)

  def step(state: Any, t: jax.Array) -> tuple[Any, None]:
    held_SbTD, batches_MbTD, aux, sown = state
    item_S = t - number_S
    first_bTD = batches_MbTD[t % plan.microbatches]
    held_SbTD = constrained(held_SbTD.at[0].set(first_bTD), 'LBTD')
    held_SbTD, aux_S, new = run(by_stage, micro, held_SbTD, item_S)
    held_SbTD = constrained(held_SbTD, 'LBTD')
    done = t - plan.stages + 1
    # A slot holds the input of a micro-batch, then the output of its last round.
    slot, written = done % plan.microbatches, batches_MbTD.at[done % plan.microbatches]
    last_bTD = jnp.where(done >= 0, held_SbTD[-1], batches_MbTD[slot])
    batches_MbTD = constrained(written.set(last_bTD), '-BTD')
    sown = jax.tree.map(lambda total, n: plan.add(total, n, item_S), sown, new)
    return (jnp.roll(held_SbTD, 1, 0), batches_MbTD, aux + jnp.sum(aux_S), sown), None

  batches_MbTD = constrained(plan.split(x_BTD, batch), '-BTD')
  held_SbTD = jnp.zeros((plan.stages, *batches_MbTD.shape[1:]), x_BTD.dtype)
  shapes = jax.eval_shape(run, by_stage, micro, held_SbTD, number_S)[2]
  sown = jax.tree.map(plan.zeros, shapes)
  start = held_SbTD, batches_MbTD, jnp.zeros_like(aux), sown
  (_, batches_MbTD, total, sown), _ = jax.lax.scan(step, start, jnp.arange(plan.steps))
  x_BTD = constrained(plan.joined(batches_MbTD), 'BTD')
  sown = jax.tree.map(lambda a: a.reshape(-1, *a.shape[3:]), sown)
  return (x_BTD, extra, aux + total / plan.microbatches), (None, sown)


class _Schedule(NamedTuple):
  """The sizes of a pipeline.

  Attributes:
    names: The mesh axes of the stages.
    stages: S, the number of stages.
    microbatches: M, the number of micro-batches.
    rounds: R, the number of groups of layers of a stage.
  """

  names: tuple[str, ...]
  stages: int
  microbatches: int
  rounds: int

  @classmethod
  def of(cls, options: Pipeline, layers: int, batch: int) -> '_Schedule':
    """Return the schedule of a segment.

    Args:
      options: The options of the run.
      layers: The number of repeats.
      batch: The size of the batch.

    Returns:
      The schedule.
    """
    stages, ways = (device_count(split_axes(letter)) for letter in 'LB')
    if layers % (stages * options.rounds):
      raise errors.UserError(
        f'mesh.stage: {layers} repeats of a segment are not divisible by {stages} stages x '
        f'{options.rounds} rounds. Expected sizes that divide.'
      )
    wanted = options.microbatches or 4 * stages
    fits = [m for m in range(1, batch + 1) if batch % m == 0 and batch // m % ways == 0]
    microbatches = max((m for m in fits if m <= wanted), default=0)
    if microbatches != wanted and (options.microbatches or not microbatches):
      raise errors.UserError(
        f'mesh.microbatches: {wanted} do not divide a batch of {batch} over {ways} devices. '
        f'Expected one of {", ".join(map(str, fits)) or "a larger batch"}.'
      )
    if options.rounds > 1 and microbatches < stages:
      raise errors.UserError(
        f'mesh.rounds: {options.rounds} rounds need at least as many micro-batches as stages '
        f'({stages}), and there are {microbatches}. Expected a larger batch, or rounds=1.'
      )
    return cls(split_axes('L'), stages, microbatches, options.rounds)

  @property
  def steps(self) -> int:
    """The number of steps."""
    return self.rounds * self.microbatches + self.stages - 1

  def by_stage(self, a_L: jax.Array) -> jax.Array:
    """Return an array of layers as `[rounds, stages, layers of a group, ...]`."""
    a = a_L.reshape(self.rounds, self.stages, -1, *a_L.shape[1:])
    free = (jax.P.UNCONSTRAINED,) * (a.ndim - 2)
    return jax.lax.with_sharding_constraint(a, jax.P(None, self.names, *free))

  def split(self, a: jax.Array, batch: int) -> jax.Array:
    """Return an array `[batch or 1, ...]` as `[micro-batches, ...]`.

    A micro-batch has every M-th example, so that it is spread over the same devices.
    """
    if a.shape[0] == 1 != batch:
      return jnp.broadcast_to(a[None], (self.microbatches, *a.shape))
    return jnp.moveaxis(a.reshape(-1, self.microbatches, *a.shape[1:]), 1, 0)

  def joined(self, a: jax.Array) -> jax.Array:
    """Return the batch of micro-batches; the inverse of `split`."""
    return jnp.moveaxis(a, 0, 1).reshape(-1, *a.shape[2:])

  def zeros(self, shape: jax.ShapeDtypeStruct) -> jax.Array:
    """Return zeros of an output of stages, for each round."""
    return jnp.zeros((self.rounds, *shape.shape), shape.dtype)

  def add(self, total: jax.Array, new: jax.Array, item_S: jax.Array) -> jax.Array:
    """Add the outputs of stages to the total of the round that each stage is in."""
    round_S = jnp.clip(item_S // self.microbatches, 0, self.rounds - 1)
    return total.at[round_S, jnp.arange(self.stages)].add(new)

  def valid(self, item: jax.Array) -> jax.Array:
    """Return whether a stage has work."""
    return (item >= 0) & (item < self.rounds * self.microbatches)


def _run_stage(
  plan: _Schedule,
  body: Body,
  unit: Any,
  ctx: Ctx,
  by_round: Layers,
  of_batches: dict[str, Any],
  x_bTD: jax.Array,
  item: jax.Array,
) -> tuple[jax.Array, jax.Array, Any]:
  """Run the layers of one stage on one micro-batch.

  Args:
    plan: The schedule.
    body: One repeat.
    unit: The module of a repeat.
    ctx: The context of the whole batch.
    by_round: The layers of the stage, by round.
    of_batches: The fields of the context that have a batch axis, by micro-batch.
    x_bTD: The micro-batch.
    item: The number of its pass, counted over rounds and micro-batches.

  Returns:
    (the output, the auxiliary loss, the sown collections). The last two are 0 without work.
  """
  round_, micro = item // plan.microbatches, item % plan.microbatches
  layers = jax.tree.map(lambda a: a[jnp.clip(round_, 0, plan.rounds - 1)], by_round)
  own_ctx = dataclasses.replace(ctx, **jax.tree.map(lambda a: a[micro], of_batches))
  if layers.keys is not None:
    fold = lambda key: jax.random.fold_in(key, micro)
    layers = layers._replace(keys=jax.vmap(fold)(layers.keys))
  own_body = lambda carry, layer: body(carry, layer, own_ctx)
  loop = unroll if unit.dims.run.loop == 'unroll' else scan
  start = x_bTD, (), jnp.zeros((), jnp.float32)
  (x_bTD, _, aux), (_, sown) = loop(own_body, unit, own_ctx, start, layers)
  if other := sorted(set(sown) - {'load'}):
    raise errors.UserError(
      f'mesh.stage: a pipeline cannot return {", ".join(other)}. Expected mesh.stage=1.'
    )
  used = plan.valid(item)
  masked = lambda a: jnp.where(used, a, jnp.zeros_like(a))
  return x_bTD, masked(aux), jax.tree.map(masked, sown)


def _check(ctx: Ctx, extra: Any, layers: Layers) -> None:
  """Raise a UserError if the segment cannot run as a pipeline."""
  problem = None
  if layers.params is None:
    problem = 'the repeats of a segment share their parameters'
  elif layers.caches is not None:
    problem = 'a cache holds all examples of the batch'
  elif jax.tree.leaves(extra):
    problem = 'the residual kind of the model keeps the outputs of earlier layers'
  elif ctx.lent:
    problem = 'layers use the keys and values of an earlier segment'
  if problem is not None:
    raise errors.UserError(f'mesh.stage: {problem}. Expected mesh.stage=1.')
