"""The programs that can be planned: a training step, an evaluation, a prefill, a decoding step."""

from collections.abc import Callable, Sequence
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tfm.core import errors
from tfm.core.registry import Table
from tfm.generate.prompts import decoding_problems
from tfm.model import count, transformer
from tfm.model.cache import cache_letters, init_cache
from tfm.train import shard
from tfm.train.build import build
from tfm.train.experiment import Experiment
from tfm.train.speed import flops_per_step


class Program(NamedTuple):
  """A program before it is traced.

  Attributes:
    trace: Traces it; no array is created.
    mesh: The device mesh.
    arguments: The arguments by class, as shapes with shardings: 'parameters', 'optimizer', 'cache',
      'models' (further models of the task) and others.
    trained: The parameters with gradients; None outside training.
    model_flops: The FLOPs of the model in one call, over all chips, without recomputation; None if
      unknown.
    tokens: The tokens (or examples) of one call, over all chips.
    unit: 'tokens' or 'examples'.
    notes: Sentences about axes that are replicated.
  """

  trace: Callable[[], Any]
  mesh: jax.sharding.Mesh
  arguments: dict[str, Any]
  trained: Any
  model_flops: float | None
  tokens: int
  unit: str
  notes: list[str]


def train(x: Experiment, devices: Sequence[jax.Device]) -> Program:
  """Return the training step of an experiment."""
  built = build(x, devices)
  state, batch = built.like(), shard.sharded_shapes(built.batch.shapes, built.batch.shardings)
  arguments = {'parameters': state['params'], 'optimizer': state['opt'], 'batch': batch}
  if 'ema' in state:
    arguments['average'] = state['ema']
  if built.constants:
    arguments['models'] = built.constants
  unit, amount = x.task.per_step(x.data)
  return Program(
    trace=lambda: built.step.trace(*built.arguments),
    mesh=built.mesh,
    arguments=arguments,
    trained=x.optim.trained(state['params']),
    model_flops=flops_per_step(x),
    tokens=int(amount),
    unit=unit,
    notes=built.notes,
  )


def evaluate(x: Experiment, devices: Sequence[jax.Device]) -> Program:
  """Return the evaluation of a batch."""
  built = build(x, devices)
  params, batch = (
    built.like()['params'],
    shard.sharded_shapes(built.batch.shapes, built.batch.shardings),
  )
  arguments = {'parameters': params, 'batch': batch}
  if built.constants:
    arguments['models'] = built.constants
  flops = flops_per_step(x)
  unit, amount = x.task.per_step(x.data)
  return Program(
    trace=lambda: built.eval.trace(params, batch, *built.extra(built.constants)),
    mesh=built.mesh,
    arguments=arguments,
    trained=None,
    model_flops=None if flops is None else flops / 3,
    tokens=int(amount),
    unit=unit,
    notes=built.notes,
  )


def prefill(x: Experiment, devices: Sequence[jax.Device]) -> Program:
  """Return the forward pass over prompts that fill a cache of `data.length` tokens."""
  return _serve(x, devices, prompt=True)


def decode(x: Experiment, devices: Sequence[jax.Device]) -> Program:
  """Return one decoding step with a cache of `data.length` tokens for each sequence."""
  return _serve(x, devices, prompt=False)


def _serve(x: Experiment, devices: Sequence[jax.Device], prompt: bool) -> Program:
  spec, run, B, T = x.model, x.run(), x.data.batch, getattr(x.data, 'length', 0)
  problems = list(decoding_problems(spec))
  if spec.encoder is not None:
    problems.append('the model has an encoder')
  if problems or not T:
    reason = problems[0] if problems else 'the data has no length'
    raise errors.UserError(
      f'--step: the config cannot be planned for decoding: {reason}. Expected a decoder of tokens, '
      'or --step=train or eval.'
    )
  mesh, rules = shard.make_mesh(x.mesh, devices), x.mesh.table()
  shard.check_batch(mesh, rules, B, 1)
  letters, shapes = transformer.param_letters(spec), transformer.param_shapes(spec, run)
  place, rules, notes = shard.shardings(mesh, rules, letters, shapes)
  params = shard.sharded_shapes(shapes, place)
  dtype = run.precision.dtype('compute')
  empty = jax.eval_shape(functools.partial(init_cache, spec, B, T, dtype, kind=run.cache))
  cache = shard.sharded_shapes(empty, shard.shardings(mesh, rules, cache_letters(empty), empty)[0])
  ids = jax.ShapeDtypeStruct((B, T if prompt else 1), jnp.int32)
  ids = shard.sharded_shapes(ids, shard.batch_axis(mesh, rules))

  def step(params: Any, cache: Any, input_ids: jax.Array) -> tuple[jax.Array, Any]:
    out = transformer.apply(
      spec, params, run=run, cache=cache, logits_to_keep=1, input_ids=input_ids
    )
    return jnp.argmax(out['logits'][:, -1], axis=-1), out['cache']

  step.__name__ = 'prefill' if prompt else 'decode'
  where = jax.tree.map(lambda a: a.sharding, (params, cache, ids))
  compiled = jax.jit(
    shard.with_rules(mesh, rules, step),
    donate_argnums=1,
    in_shardings=where,
    out_shardings=(shard.batch_axis(mesh, rules), where[1]),
  )
  per_sequence = count.flops_of_document(spec, T)
  if not prompt:  # the last token of a document of T
    per_sequence -= count.flops_of_document(spec, T - 1) if T > 1 else 0
  return Program(
    trace=lambda: compiled.trace(params, cache, ids),
    mesh=mesh,
    arguments={'parameters': params, 'cache': cache, 'batch': ids},
    trained=None,
    model_flops=B * per_sequence,
    tokens=B * (T if prompt else 1),
    unit='tokens',
    notes=notes,
  )


#: The programs by the name in `--step`.
STEPS = Table('step', train=train, eval=evaluate, prefill=prefill, decode=decode)


def bytes_per_chip(tree: Any) -> int:
  """Return the bytes of a tree of shapes with shardings on one chip."""
  total = 0
  for array in jax.tree.leaves(tree):
    shape = array.sharding.shard_shape(array.shape)
    total += math.prod(shape) * array.dtype.itemsize
  return total
