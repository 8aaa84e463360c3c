"""The cost and the layers of a model, and the attention kernels of a run, as sheets."""

from collections.abc import Iterator
import math
from typing import Any

from tfm.cli.sheets import Sheet
from tfm.core import config
from tfm.generate.prompts import decoding_problems
from tfm.model import count
from tfm.model.spec import Model
from tfm.parts.cache.base import Cache
from tfm.parts.cache.dense import DenseCache

#: The sequence length of costs where the config has no data.
LENGTH = 1024


def sheets(spec: Model, length: int | None, dtype: str, cache: Cache = DenseCache()) -> list[Sheet]:
  """Return the costs of a model and its layers.

  Args:
    spec: The model.
    length: Tokens of a sequence; None takes 1024, or the most that the model has positions for.
    dtype: The dtype of activations and of the cache.
    cache: The kind of cache.

  Returns:
    Two sheets: costs, and layers.
  """
  length = spec.embed.tokens(length or min(LENGTH, spec.max_positions or LENGTH))
  forward, params = count.flops_per_token(spec, length), count.count_params(spec)
  training = 3 * (forward + count.mtp_flops(spec, length))
  costs = [
    ('parameters', f'{params:,}'),
    ('weights, float32', size_of(4 * params)),
    ('weights, bfloat16', size_of(2 * params)),
    (f'FLOPs per token, forward, sequences of {length}', _short(forward)),
    (f'FLOPs per token, training, sequences of {length}', _short(training)),
    *_cache_costs(spec, length, dtype, cache),
  ]
  return [Sheet('model', ('cost', 'value'), tuple(costs)), _layers(spec, length)]


def _cache_costs(spec: Model, length: int, dtype: str, cache: Cache) -> Iterator[tuple[str, str]]:
  if any(decoding_problems(spec)):
    yield 'cache', 'none: the model does not decode token by token'
    return
  kind = f'{dtype}, {config.text_of(cache)}'
  yield f'cache per token, {kind}', size_of(count.cache_bytes_per_token(spec, dtype, cache))
  yield f'cache of {length} tokens, {kind}', size_of(count.cache_bytes(spec, length, dtype, cache))
  if state := count.state_bytes(spec, dtype):
    yield 'recurrent state per sequence, any length', size_of(state)


def _layers(spec: Model, length: int) -> Sheet:
  """Return a line for each layer or module that has parameters or FLOPs."""
  lines = []
  for row in count.table(spec, length):
    if not (row.params or row.flops):
      continue
    parts = ', '.join(name for name in row.parts.values() if name)
    flops = _short(row.flops * row.repeats) if row.flops else ''
    numbers = (f'{row.params:,}', f'{row.params * row.repeats:,}', flops)
    lines.append((row.where, str(row.repeats), parts, *numbers))
  columns = ('layers', 'times', 'parts', 'each', 'parameters', 'FLOPs/token')
  return Sheet('layers', columns, tuple(lines))


def training_state(experiment: Any) -> Iterator[Sheet]:
  """Yield the bytes of a run's weights and optimizer state; no array is made."""
  import jax

  from tfm.model import transformer
  from tfm.train import step

  tx = experiment.optim.make(experiment.steps, transformer.param_letters(experiment.model))
  rows = []
  for name, tree in step.shapes(experiment, tx).items():
    arrays = jax.tree.leaves(tree)
    total = sum(math.prod(a.shape) * a.dtype.itemsize for a in arrays)
    if total > 8:  # the step number is no cost
      rows.append((_STATE.get(name, name), size_of(total)))
  yield Sheet('training state, all devices', ('arrays', 'value'), tuple(rows))


_STATE = {'params': 'weights', 'opt': 'optimizer state', 'ema': 'average of weights'}


def kernels(experiment: Any) -> Iterator[Sheet]:
  """Yield the attention kernels that `attend=auto` takes on this machine, and why not others."""
  import jax

  from tfm.model import transformer
  from tfm.parts.attend.auto import recorded

  spec, run = experiment.model, experiment.run()
  inputs = experiment.task.inputs(experiment.task.shapes(spec, experiment.data))
  shapes = transformer.param_shapes(spec)
  with recorded() as choices:
    jax.eval_shape(lambda p, x: transformer.apply(spec, p, run=run, **x), shapes, inputs)
  rows = []
  for choice in choices:
    kernel = choice.kernel.table().name_of(choice.kernel)
    reasons = '\n'.join(f'{name}: {why}' for name, why in choice.refused.items())
    rows.append((' x '.join(map(str, choice.shape)), kernel, reasons))
  if rows:
    columns = ('batch x heads x queries x keys', 'kernel', 'others')
    yield Sheet(f'attention kernels on {jax.default_backend()}', columns, tuple(rows))


def size_of(number: float) -> str:
  """Return bytes in the nearest unit: `5.25 MB`, powers of 1000."""
  return f'{_short(number)}B' if number >= 1000 else f'{number:.4g} B'


def _short(number: float) -> str:
  """Return a number with its unit: `2.66 G` for 2.66e9."""
  for unit in ('', ' k', ' M', ' G', ' T', ' P'):
    if number < 1000 or unit == ' P':
      break
    number /= 1000
  return f'{number:.4g}{unit}'
