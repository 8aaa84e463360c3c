"""Compile an experiment into step functions with shardings. No data is opened."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any, NamedTuple

import jax
from jax.sharding import NamedSharding

from tfm.core import errors
from tfm.model import transformer
from tfm.parts.quantize.base import Quantize
from tfm.train import offload, shard
from tfm.train import step as step_lib
from tfm.train.experiment import Experiment


class BatchLayout(NamedTuple):
  """The feature arrays of a batch.

  Attributes:
    shapes: Shape and dtype of each feature, by name.
    shardings: The sharding of each feature, by name.
  """

  shapes: dict[str, jax.ShapeDtypeStruct]
  shardings: dict[str, NamedSharding]


class Built(NamedTuple):
  """The compiled functions of an experiment and the layout of their arrays.

  Attributes:
    mesh: The device mesh.
    rules: The mesh axes of each axis letter.
    notes: Messages about axes that are replicated because their size is not divisible.
    shapes: The training state as `jax.ShapeDtypeStruct`s.
    shardings: The sharding of every array of the state.
    loaded: The shardings of parameters before those of `x.frozen` are quantized, for `start`.
    constants: The parameters of the further models of the task as sharded shapes, by name.
    batch: The layout of the features of a batch.
    batch_axis: The sharding of the batch axis.
    init: `key -> state` before the first update.
    start: `params -> state` before the first update. Donates `params`.
    step: `(state, batch) -> (state, metrics)`. Donates `state`. See `step.make_step`.
    eval: `(params, batch) -> ratios` of the task. If the task has further models, `constants` is
      the third argument of `step` and `eval`.
    outputs: `(params, batch) -> outputs` of the model.
    measure_rollout: `(params, batch) -> further features` of a batch of samples.
  """

  mesh: jax.sharding.Mesh
  rules: dict[str, tuple[str, ...]]
  notes: list[str]
  shapes: step_lib.State
  shardings: step_lib.State
  loaded: Any
  constants: dict[str, Any]
  batch: BatchLayout
  batch_axis: NamedSharding
  init: Callable[..., Any]
  start: Callable[..., Any]
  step: jax.stages.Wrapped
  eval: jax.stages.Wrapped
  outputs: Callable[..., Any]
  measure_rollout: Callable[..., Any]

  @property
  def arguments(self) -> tuple[Any, ...]:
    """The arguments of `step` as shapes: state, batch, and constants if there are any."""
    return (self.shapes, self.batch.shapes, *self.extra(self.constants))

  @staticmethod
  def extra(constants: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the constants as further arguments of `step` and `eval`: none if they are empty."""
    return (constants,) if constants else ()

  def like(self) -> step_lib.State:
    """Return the sharded shapes of the state, to restore a checkpoint into."""
    return shard.sharded_shapes(self.shapes, self.shardings)


def build(x: Experiment, devices: Sequence[jax.Device] | None = None) -> Built:
  """Return the compiled functions of a valid experiment and their shardings.

  No array is created and no data is opened. To compile a step ahead of time, call
  `built.step.lower(*built.arguments)`.

  Args:
    x: A valid experiment (`config.validate`).
    devices: The devices of the mesh. Defaults to all devices.

  Returns:
    The functions, which compile at their first call.

  Raises:
    UserError: The mesh does not fit the devices, or does not divide an axis of the state or
      the batch; or something is stored on the host, and the devices are CPUs.
  """
  tx = x.optim.make(x.steps, transformer.param_letters(x.model))
  mesh, rules = shard.make_mesh(x.mesh, devices), x.mesh.table()
  offload.check(x, list(mesh.devices.flat))
  shard.check_batch(mesh, rules, x.data.batch, x.optim.accumulate)
  shapes = step_lib.shapes(x, tx)
  shardings, rules, notes = shard.shardings(mesh, rules, step_lib.letters(x, tx), shapes)
  for start in x.curriculum.starts():
    batch_layout(x.at(start), mesh, rules)
  batch = batch_layout(x, mesh, rules)
  constants = constant_shapes(x, mesh)
  given = jax.tree.map(lambda array: array.sharding, Built.extra(constants))
  replicated = shard.replicated(mesh)
  with_rules = lambda fn: shard.with_rules(mesh, rules, fn)
  step = step_lib.make_step(x, tx)
  if x.optim.memory == 'host':
    step = offload.fetching(step, shardings['opt'])
    shardings |= {'opt': offload.on_host(shardings['opt'], shapes['opt'])}
  return Built(
    mesh=mesh,
    rules=rules,
    notes=notes,
    shapes=shapes,
    shardings=shardings,
    loaded=_loaded(x, mesh, shardings['params']),
    constants=constants,
    batch=batch,
    batch_axis=shard.batch_axis(mesh, rules),
    init=jax.jit(step_lib.make_init(x, tx), out_shardings=shardings),
    start=jax.jit(step_lib.make_start(x, tx), out_shardings=shardings, donate_argnums=0),
    step=jax.jit(
      with_rules(step),
      donate_argnums=0,
      in_shardings=(shardings, batch.shardings, *given),
      out_shardings=(shardings, replicated),
    ),
    eval=jax.jit(with_rules(step_lib.make_eval(x)), out_shardings=replicated),
    outputs=jax.jit(with_rules(step_lib.make_outputs(x)), out_shardings=replicated),
    measure_rollout=jax.jit(with_rules(step_lib.make_measure_rollout(x))),
  )


def _loaded(x: Experiment, mesh: jax.sharding.Mesh, stored: Any) -> Any:
  """Return the shardings of the parameters as models are loaded, given the stored ones."""
  if x.frozen == Quantize():
    return stored
  letters, shapes = transformer.param_letters(x.model), transformer.param_shapes(x.model, x.run())
  return shard.shardings(mesh, x.mesh.table(), letters, shapes)[0]


def constant_shapes(x: Experiment, mesh: jax.sharding.Mesh) -> dict[str, Any]:
  """Return the parameters of the further models as sharded shapes, by name.

  Raises:
    UserError: `x.models` lacks a model, or a mesh axis does not divide an axis of its parameters.
  """
  found = {}
  for name, folder in x.task.models(x.init_from).items():
    if name not in x.models:
      raise errors.UserError(
        f'task.{name}: the architecture of {folder} is not in `models`. Expected the result of '
        'tfm.train.constants.described(x, read_model).'
      )
    letters = transformer.param_letters(x.models[name])
    shapes = transformer.param_shapes(x.models[name], x.run())
    where = shard.shardings(mesh, x.mesh.table(), letters, shapes)[0]
    found[name] = shard.sharded_shapes(shapes, where)
  return found


def build_eval(
  x: Experiment, devices: Sequence[jax.Device]
) -> tuple[BatchLayout, NamedSharding, Callable[..., Any]]:
  """Return what evaluation needs, without an optimizer state.

  Args:
    x: A valid experiment. Only the rules of its mesh are used.
    devices: The devices to evaluate on.

  Returns:
    The batch layout, the sharding of the batch axis, and `(params, batch) -> ratios`, with
    the parameters of further models as a third argument (`constant_shapes`).
  """
  x = dataclasses.replace(x, mesh=type(x.mesh)(rules=x.mesh.rules))
  mesh, rules = shard.make_mesh(x.mesh, devices), x.mesh.table()
  layout, batch_axis = batch_layout(x, mesh, rules), shard.batch_axis(mesh, rules)
  return layout, batch_axis, jax.jit(step_lib.make_eval(x))


def batch_layout(x: Experiment, mesh: jax.sharding.Mesh, rules: shard.Rules) -> BatchLayout:
  """Return the shapes and shardings of the features of a batch.

  Args:
    x: The experiment.
    mesh: The device mesh.
    rules: The mesh axes of each axis letter.

  Returns:
    The layout of the global batch.

  Raises:
    UserError: A mesh axis does not divide an axis of a feature.
  """
  shapes = x.task.shapes(x.model, x.data)
  letters = x.task.letters(x.model, x.data)
  return BatchLayout(shapes, shard.shardings(mesh, rules, letters, shapes)[0])
