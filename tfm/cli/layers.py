"""A model line by line, and what it costs, as sheets."""

from tfm.cli.sheets import Sheet
from tfm.model import count
from tfm.model.spec import Model

#: The length of documents that costs are said for where no data says one.
LENGTH = 1024


def sheets(spec: Model, length: int | None, dtype: str) -> list[Sheet]:
  """The costs of a model for documents of `length` tokens and a cache of `dtype`, and its layers."""
  length = length or min(LENGTH, spec.max_positions or LENGTH)
  forward, cache = count.flops_per_token(spec, length), count.cache_bytes_per_token(spec, dtype)
  costs = (
    ('parameters', f'{count.count_params(spec):,}'),
    (f'FLOPs per token, forward, documents of {length}', _short(forward)),
    (f'FLOPs per token, training, documents of {length}', _short(3 * forward)),
    (f'cache bytes per token, {dtype}', f'{cache:,}'),
  )
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


def _short(number: float) -> str:
  """`2.66 G` of 2.66e9."""
  for unit in ('', ' k', ' M', ' G', ' T', ' P'):
    if number < 1000 or unit == ' P':
      break
    number /= 1000
  return f'{number:.4g}{unit}'
