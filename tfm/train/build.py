"""One function from an experiment to its compiled functions and shardings. It opens no data."""

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any, NamedTuple

import jax
from jax.sharding import NamedSharding
import optax

from tfm.model import transformer
from tfm.train import shard
from tfm.train import step as step_lib
from tfm.train.experiment import Experiment


class BatchLayout(NamedTuple):
  """The features of a batch by name: their shapes, and their shardings by the letters of their
  axes.
  """

  shapes: dict[str, jax.ShapeDtypeStruct]
  where: dict[str, NamedSharding]


class Built(NamedTuple):
  """The functions of an experiment and the layout of their arrays.

  Attributes: mesh: The devices. rules: The mesh axes of each letter. notes: Sentences about axes
    that stay whole because their mesh axes do not divide them. shapes: The state as
    `jax.ShapeDtypeStruct`s. where: The sharding of every array of the state. batch: The layout of
    the features of a batch. rows: The sharding of the first axis of a batch. init: `key -> state`
    before any update. start: `params -> state` before any update; takes over the buffers of
    `params`. step: `(state, batch) -> (state, metrics)`; takes over the buffers of `state`. See
    `step.make_step`. eval: `(params, batch) -> ratios` of the task. outputs: `(params, batch) ->
    outputs` of the model.
  """

  mesh: jax.sharding.Mesh
  rules: dict[str, tuple[str, ...]]
  notes: list[str]
  shapes: step_lib.State
  where: step_lib.State
  batch: BatchLayout
  rows: NamedSharding
  init: Callable[..., Any]
  start: Callable[..., Any]
  step: Callable[..., Any]
  eval: Callable[..., Any]
  outputs: Callable[..., Any]

  def like(self) -> step_lib.State:
    """Return the shapes of the state with their shardings, to restore a checkpoint into."""
    return jax.tree.map(
      lambda s, w: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=w), self.shapes, self.where
    )


def build(x: Experiment, devices: Sequence[jax.Device] | None = None) -> Built:
  """Return the functions of a valid experiment and where their arrays live.

  No array is made and no data is opened: `build(x).step.lower(built.shapes, built.batch.shapes)`
  compiles a step.

  Args:
    x: A valid experiment (`config.validate`).
    devices: The devices of the mesh, all by default.

  Raises:
    UserError: if the mesh does not fit the devices, or does not divide an axis of the state or the
    batch.
  """
  tx = x.optim.make(x.steps, transformer.param_letters(x.model))
  mesh, rules = shard.make_mesh(x.mesh, devices), x.mesh.table()
  shard.check_batch(mesh, rules, x.data.batch, x.optim.accumulate)
  shapes = step_lib.shapes(x, tx)
  where, rules, notes = shard.shardings(mesh, rules, step_lib.letters(x, tx), shapes)
  batch = batch_layout(x, mesh, rules)
  whole = shard.whole(mesh)
  within = lambda fn: shard.within(mesh, rules, fn)
  return Built(
    mesh=mesh,
    rules=rules,
    notes=notes,
    shapes=shapes,
    where=where,
    batch=batch,
    rows=shard.rows(mesh, rules),
    init=jax.jit(step_lib.make_init(x, tx), out_shardings=where),
    start=jax.jit(step_lib.make_begin(x, tx), out_shardings=where, donate_argnums=0),
    step=_jit_step(x, tx, within, where, batch, whole),
    eval=jax.jit(within(step_lib.make_eval(x)), out_shardings=whole),
    outputs=jax.jit(within(step_lib.make_outputs(x)), out_shardings=whole),
  )


def build_eval(
  x: Experiment, devices: Sequence[jax.Device]
) -> tuple[BatchLayout, NamedSharding, Callable[..., Any]]:
  """Return the batch layout, the sharding of rows and the evaluation function, without an optimizer
  state.
  """
  x = dataclasses.replace(x, mesh=type(x.mesh)(rules=x.mesh.rules))
  mesh, rules = shard.make_mesh(x.mesh, devices), x.mesh.table()
  return batch_layout(x, mesh, rules), shard.rows(mesh, rules), jax.jit(step_lib.make_eval(x))


def batch_layout(x: Experiment, mesh: jax.sharding.Mesh, rules: shard.Rules) -> BatchLayout:
  """Return shapes and shardings of the features of a batch.

  Raises:
    UserError: if a mesh axis does not divide an axis of a feature.
  """
  shapes = x.task.shapes(x.model, x.data)
  return BatchLayout(
    shapes, shard.shardings(mesh, rules, x.task.letters(x.model, x.data), shapes)[0]
  )


def _jit_step(
  x: Experiment,
  tx: optax.GradientTransformation,
  within: Any,
  where: Any,
  batch: BatchLayout,
  whole: NamedSharding,
) -> Callable[..., Any]:
  return jax.jit(
    within(step_lib.make_step(x, tx)),
    donate_argnums=0,
    in_shardings=(where, batch.where),
    out_shardings=(where, whole),
  )
