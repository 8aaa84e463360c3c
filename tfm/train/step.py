"""The train step: a pure function of state and batch."""

from collections.abc import Callable, Mapping
import functools
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import optax

from tfm.model import balance, transformer
from tfm.model.quantized import quantize, quantized_letters
from tfm.optim import ema
from tfm.optim.accumulate import accumulate
from tfm.optim.letters import state_letters
from tfm.optim.subset import merged
from tfm.parts.quantize.base import Quantize
from tfm.tasks import Ratio
from tfm.train.experiment import Experiment
from tfm.train.forward import Forward, Models

#: `step` (updates made), `params`, `opt`, and `ema` if the optimizer keeps an average.
State = dict[str, Any]
Batch = dict[str, jax.Array]
#: The parameters of the further models of a task, by name.
Constants = Mapping[str, Any]
NONE: Constants = MappingProxyType({})


def make_init(x: Experiment, tx: optax.GradientTransformation) -> Callable[[jax.Array], State]:
  """Return `key -> state` before the first update."""
  start = make_start(x, tx)
  return lambda key: start(transformer.init(x.model, key, x.run()))


def make_start(x: Experiment, tx: optax.GradientTransformation) -> Callable[[Any], State]:
  """Return `params -> state` before the first update."""

  def start(params: Any) -> State:
    params = stored(x, params)
    state = {
      'step': jnp.zeros((), jnp.int32),
      'params': params,
      'opt': tx.init(x.optim.trained(params)),
    }
    return state if x.optim.ema is None else state | {'ema': ema.init(params)}

  return start


def stored(x: Experiment, params: Any) -> Any:
  """Return the parameters, with frozen weights in the format `x.frozen`."""
  if x.frozen == Quantize():
    return params
  return merged(x.optim.trained(params), x.optim.frozen(quantize(x.model, params, x.frozen)))


def shapes(x: Experiment, tx: optax.GradientTransformation) -> State:
  """Return the state as `jax.ShapeDtypeStruct`s. No array is created."""
  return jax.eval_shape(make_init(x, tx), jax.random.key(0))


def letters(x: Experiment, tx: optax.GradientTransformation) -> State:
  """Return the axis letters of every array of the state, '' for scalars."""
  params = transformer.param_letters(x.model)
  trained = [x.optim.trained(tree) for tree in (transformer.param_shapes(x.model, x.run()), params)]
  opt = state_letters(tx, *trained)
  if x.frozen != Quantize():
    params = quantized_letters(params, shapes(x, tx)['params'])
  out = {'step': '', 'params': params, 'opt': opt}
  return out if x.optim.ema is None else out | {'ema': params}


def make_step(
  x: Experiment, tx: optax.GradientTransformation
) -> Callable[..., tuple[State, dict[str, jax.Array]]]:
  """Return `(state, batch) -> (state, metrics)`, one update of the parameters.

  If the task has further models (`Task.models`), their parameters by name are a third argument.

  The sums and weights of the task's ratios, and the gradient of the sum of 'loss', are added over
  examples, micro-batches and devices. They are divided once, by the weight of 'loss'. So the loss
  does not depend on how a batch is split, up to rounding.

  Auxiliary losses of the model are means. They are added for each micro-batch, times its weight
  of 'loss'. Dropout uses a key of (seed, step). Parameters without a gradient are updated last,
  from the expert load of the whole step.

  If the loss or the gradient norm is not finite, only the step number of the state changes. With
  `x.recover.skip=0` the state is updated in any case.

  The metrics are float32 scalars: `loss` (the minimised loss with auxiliary losses), the other
  ratios of the task, `grad_norm` (before clipping) and `lr`.
  """
  rate = x.optim.schedule_fn(x.steps)
  totals = _make_totals(x)

  def step(
    state: State, batch: Batch, constants: Constants = NONE
  ) -> tuple[State, dict[str, jax.Array]]:
    key = jax.random.fold_in(dropout_key(x.seed), state['step'])
    trained, frozen = x.optim.trained(state['params']), x.optim.frozen(state['params'])
    gradient = jax.value_and_grad(functools.partial(totals, frozen, constants), has_aux=True)
    (total, (ratios, load)), grads = accumulate(gradient, x.optim.accumulate)(trained, batch, key)
    share = _inverse(ratios['loss'].weight)
    grads = jax.tree.map(lambda g: g * share.astype(g.dtype), grads)
    updates, opt = tx.update(grads, state['opt'], trained)
    params = merged(optax.apply_updates(trained, updates), frozen)
    params = balance.update_params(x.model, params, load)
    new = {'step': state['step'] + 1, 'params': params, 'opt': opt}
    if x.optim.ema is not None:
      new['ema'] = ema.update(state['ema'], params, state['step'], x.optim.ema)
    metrics = {name: r.sum * _inverse(r.weight) for name, r in ratios.items()}
    metrics |= {
      'loss': total * share,
      'grad_norm': optax.tree.norm(jax.tree.map(lambda g: g.astype(jnp.float32), grads)),
      'lr': rate(state['step']),
    }
    if x.recover.skip:
      finite = jnp.isfinite(metrics['loss']) & jnp.isfinite(metrics['grad_norm'])
      kept = jax.tree.map(functools.partial(jnp.where, finite), new, state)
      new = kept | {'step': new['step']}
    return new, metrics

  return step


def _make_totals(x: Experiment) -> Callable[..., tuple[jax.Array, tuple[dict[str, Ratio], Any]]]:
  """Return the function to differentiate.

  `(frozen, constants, trained, batch, key) -> (sum of the minimised loss, (ratios of the task,
  expert load))`
  """

  def totals(
    frozen: Any, constants: Constants, trained: Any, batch: Batch, key: jax.Array | None
  ) -> tuple[jax.Array, tuple[dict[str, Ratio], Any]]:
    models = _with_specs(x, constants)
    forward = Forward(x.model, merged(trained, frozen), x.run(), key, models)
    ratios = x.task.loss(forward, batch, forward.task_key)
    loss = ratios['loss']
    return loss.sum + forward.aux * loss.weight, (ratios, forward.expert_load)

  return totals


def make_eval(x: Experiment) -> Callable[..., dict[str, Ratio]]:
  """Return `(params, batch) -> ratios` of the task, without dropout.

  The parameters of further models by name are a third argument, as in `make_step`.
  """

  def ratios(params: Any, batch: Batch, constants: Constants = NONE) -> dict[str, Ratio]:
    forward = Forward(x.model, params, x.run(), models=_with_specs(x, constants))
    return x.task.loss(forward, batch, None)

  return ratios


def _with_specs(x: Experiment, constants: Constants) -> Models:
  return {name: (x.models[name], params) for name, params in constants.items()}


def make_measure_rollout(x: Experiment) -> Callable[[Any, Batch], Batch]:
  """Return `(params, batch) -> further features` of a batch of samples."""
  return lambda params, batch: x.task.measure_rollout(Forward(x.model, params, x.run()), batch)


def make_outputs(x: Experiment) -> Callable[[Any, Batch], dict[str, Any]]:
  """Return `(params, batch) -> outputs` of the model."""
  return lambda params, batch: Forward(x.model, params, x.run())(**x.task.inputs(batch))


def _inverse(weight: jax.Array) -> jax.Array:
  """Return 1 / weight, or 0 where the weight is 0."""
  return jnp.where(weight > 0, 1 / jnp.where(weight > 0, weight, 1), 0)


def init_key(seed: int) -> jax.Array:
  """Return the key that initialises the parameters."""
  return jax.random.fold_in(jax.random.key(seed), 0)


def dropout_key(seed: int) -> jax.Array:
  """Return the dropout key of a run. Each step folds its number into it."""
  return jax.random.fold_in(jax.random.key(seed), 1)


def rollout_key(seed: int, sample: int, training: bool = True) -> jax.Array:
  """Return the key of the samples for a batch.

  Args:
    seed: The seed of the run.
    sample: The number of the first example of the batch.
    training: Whether it is a training batch.

  Returns:
    A key.
  """
  kind = jax.random.fold_in(jax.random.key(seed), 2 if training else 3)
  return jax.random.fold_in(kind, sample)


def averaged(state: State) -> Any:
  """Return the parameters for evaluation: the moving average if there is one."""
  return state.get('ema', state['params'])
