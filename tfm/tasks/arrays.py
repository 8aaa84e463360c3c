"""Features of data that holds model inputs and labels, such as images with classes."""

from collections.abc import Iterator

import numpy as np

from tfm.data.base import Data
from tfm.data.dataset import BATCH_INFO, ArraySpec, Raw
from tfm.data.textdata import TextData
from tfm.tasks.base import Features


def array_features(raw: Raw) -> Features:
  """Return inputs and labels unchanged, and float32 weights [B], by default 1."""
  weights = raw.get('weights', np.ones(len(raw['sample'])))
  arrays = {name: value for name, value in raw.items() if name not in BATCH_INFO}
  return arrays | {'weights': weights.astype(np.float32)}


def array_specs(data: Data) -> dict[str, ArraySpec]:
  """Return the arrays of `array_features`."""
  return data.specs() | {'weights': ArraySpec((data.batch,), np.float32, 'B')}


def has_arrays(task: str, data: Data, *names: str) -> Iterator[str]:
  """Yield a message if `data` is text or lacks an array.

  Args:
    task: Name of the task, for messages.
    data: The source.
    *names: The arrays that the task needs.

  Yields:
    At most one message for each name.
  """
  if isinstance(data, TextData):
    yield f'task: {task} cannot use text. Expected a source of arrays, such as images or audio.'
    return
  specs = data.specs()
  for name in names:
    if name not in specs:
      yield (
        f'task: {task} needs {name}, but the data has {", ".join(specs)}. Expected a source with '
        f'{name}.'
      )
