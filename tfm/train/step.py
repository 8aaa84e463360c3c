"""One update as a pure function of state and batch: the unit under test."""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from tfm.model import balance, transformer
from tfm.optim import ema
from tfm.optim.accumulate import accumulate
from tfm.optim.letters import state_letters
from tfm.optim.subset import merged
from tfm.train.experiment import Experiment

#: `step` (updates made), `params`, `opt`, and `ema` if the optimizer keeps an average.
State = dict[str, Any]
Batch = dict[str, jax.Array]

#: What a batch holds besides the inputs of the model.
_SCORED = ('labels', 'weights')


def make_init(x: Experiment, tx: optax.GradientTransformation) -> Callable[[jax.Array], State]:
  """`key -> state` before any update."""

  begin = make_begin(x, tx)
  return lambda key: begin(transformer.init(x.model, key, x.run()))


def make_begin(x: Experiment, tx: optax.GradientTransformation) -> Callable[[Any], State]:
  """`params -> state` before any update."""

  def begin(params: Any) -> State:
    state = {'step': jnp.zeros((), jnp.int32), 'params': params, 'opt': tx.init(x.optim.trained(params))}
    return state if x.optim.ema is None else state | {'ema': ema.init(params)}

  return begin


def shapes(x: Experiment, tx: optax.GradientTransformation) -> State:
  """The state as `jax.ShapeDtypeStruct`s; no array is made."""
  return jax.eval_shape(make_init(x, tx), jax.random.key(0))


def letters(x: Experiment, tx: optax.GradientTransformation) -> State:
  """The letters of the axes of every array of the state; '' for scalars."""
  params = transformer.param_letters(x.model)
  trained = [x.optim.trained(tree) for tree in (transformer.param_shapes(x.model, x.run()), params)]
  opt = state_letters(tx, *trained)
  out = {'step': '', 'params': params, 'opt': opt}
  return out if x.optim.ema is None else out | {'ema': params}


def inputs_of(batch: Batch) -> dict[str, Any]:
  """What of a batch the model reads."""
  return {name: value for name, value in batch.items() if name not in _SCORED}


def make_step(x: Experiment, tx: optax.GradientTransformation) -> Callable[[State, Batch], tuple[State, dict]]:
  """`(state, batch) -> (state, metrics)`: p - tx(grad sum_i w_i nats_i / sum_i w_i).

  Losses and gradients are summed over rows, micro-batches and devices, and divided once by the sum of the weights: how
  the batch is cut makes no difference. A model's own `aux` loss is a mean, so it joins a micro-batch times its weights.
  Dropout draws with a key of (seed, step). What no gradient moves is moved last, by the load of the whole step.

  The metrics are float32 scalars: `loss` (what is minimised), `loss_nats` (plain -log p a label), `accuracy`,
  `grad_norm` (before clipping), `lr`.
  """
  run, rate = x.run(), x.optim.schedule_fn(x.steps)

  def loss(frozen: Any, trained: Any, batch: Batch, key: jax.Array | None) -> tuple[jax.Array, dict]:
    params = merged(trained, frozen)
    out = transformer.apply(x.model, params, run=run, key=key, mtp=True, **inputs_of(batch))
    nats, weight, sums = x.task.loss(out, batch)
    total = nats + out['aux'].astype(jnp.float32) * weight
    return total, {'weight': weight, 'load': out.get('load', {}), **sums}

  def step(state: State, batch: Batch) -> tuple[State, dict]:
    key = jax.random.fold_in(dropout_key(x.seed), state['step'])
    trained, frozen = x.optim.trained(state['params']), x.optim.frozen(state['params'])
    gradient = jax.value_and_grad(functools.partial(loss, frozen), has_aux=True)
    (total, sums), grads = accumulate(gradient, x.optim.accumulate)(trained, batch, key)
    share = jnp.where(sums['weight'] > 0, 1 / jnp.where(sums['weight'] > 0, sums['weight'], 1), 0)
    grads = jax.tree.map(lambda g: g * share.astype(g.dtype), grads)
    updates, opt = tx.update(grads, state['opt'], trained)
    params = merged(optax.apply_updates(trained, updates), frozen)
    params = balance.updated(x.model, params, sums['load'])
    new = {'step': state['step'] + 1, 'params': params, 'opt': opt}
    if x.optim.ema is not None:
      new['ema'] = ema.update(state['ema'], params, state['step'], x.optim.ema)
    metrics = {
      'loss': total * share,
      'loss_nats': sums['nll'] * share,
      'accuracy': sums['correct'] * share,
      'grad_norm': optax.tree.norm(jax.tree.map(lambda g: g.astype(jnp.float32), grads)),
      'lr': rate(state['step']),
    }
    return new, metrics

  return step


def init_key(seed: int) -> jax.Array:
  """The key that the parameters start from."""
  return jax.random.fold_in(jax.random.key(seed), 0)


def dropout_key(seed: int) -> jax.Array:
  """The key that a step folds its number into."""
  return jax.random.fold_in(jax.random.key(seed), 1)


def averaged(state: State) -> Any:
  """The parameters to evaluate and to sample with: the moving average if there is one."""
  return state.get('ema', state['params'])
