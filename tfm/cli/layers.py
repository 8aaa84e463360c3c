"""A model line by line, what it costs, and the attention kernels of a run, as sheets."""

from collections.abc import Iterator
from typing import Any

from tfm.cli.sheets import Sheet
from tfm.core import config
from tfm.generate.prompts import decoding_problems
from tfm.model import count
from tfm.model.spec import Model
from tfm.parts.cache.base import Cache
from tfm.parts.cache.dense import DenseCache

#: The length of documents that costs are said for where no data says one.
LENGTH = 1024


def sheets(spec: Model, length: int | None, dtype: str, cache: Cache = DenseCache()) -> list[Sheet]:
  """The costs of a model for documents of `length` tokens and a cache of `dtype`, and its layers."""
  length = spec.embed.tokens(length or min(LENGTH, spec.max_positions or LENGTH))
  forward, kept = count.flops_per_token(spec, length), f'{dtype}, {config.text_of(cache)}'
  costs: tuple[tuple[str, str], ...] = (
    ('parameters', f'{count.count_params(spec):,}'),
    (f'FLOPs per token, forward, documents of {length}', _short(forward)),
    (
      f'FLOPs per token, training, documents of {length}',
      _short(3 * (forward + count.mtp_flops(spec, length))),
    ),
  )
  if any(decoding_problems(spec)):
    costs += (('cache bytes', 'none: the model does not go on token by token'),)
  else:
    costs += (
      (f'cache bytes per token, {kept}', f'{count.cache_bytes_per_token(spec, dtype, cache):,}'),
      (
        f'cache bytes of {length} tokens, {kept}',
        f'{count.cache_bytes(spec, length, dtype, cache):,}',
      ),
    )
    if state := count.state_bytes(spec, dtype):
      costs += (('row state bytes, of any number of tokens', f'{state:,}'),)
  rows = count.table(spec, length)
  kinds = list(dict.fromkeys(kind for row in rows for kind in row.parts))
  lines = tuple(
    (
      row.where,
      str(row.repeats),
      *(row.parts.get(kind, '') for kind in kinds),
      f'{row.params:,}',
      f'{row.params * row.repeats:,}',
      _short(row.flops * row.repeats) if row.flops else '',
    )
    for row in rows
  )
  columns = ('layers', 'times', *kinds, 'parameters each', 'parameters', 'FLOPs per token')
  return [Sheet('model', ('what', 'how much'), costs), Sheet('layers', columns, lines)]


def kernels(experiment: Any) -> Iterator[Sheet]:
  """The attention kernels that an experiment's step takes here, and why not others; nothing if it
  names its own.
  """
  import jax

  from tfm.model import transformer
  from tfm.parts.attend.auto import recorded

  spec, run = experiment.model, experiment.run()
  inputs = experiment.task.inputs(experiment.task.shapes(spec, experiment.data))
  shapes = transformer.param_shapes(spec)
  with recorded() as choices:
    jax.eval_shape(lambda p, x: transformer.apply(spec, p, run=run, **x), shapes, inputs)
  if choices:
    lines = tuple(
      (
        ' x '.join(map(str, choice.shape)),
        choice.kernel.table().name_of(choice.kernel),
        ' '.join(f'{name}: {why}' for name, why in choice.refused.items()),
      )
      for choice in choices
    )
    title = f'attention kernels on {jax.default_backend()}'
    yield Sheet(title, ('rows x heads x queries x keys', 'kernel', 'not taken'), lines)


def _short(number: float) -> str:
  """`2.66 G` of 2.66e9."""
  for unit in ('', ' k', ' M', ' G', ' T', ' P'):
    if number < 1000 or unit == ' P':
      break
    number /= 1000
  return f'{number:.4g}{unit}'
