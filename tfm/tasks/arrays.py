"""Features of datasets that yield model inputs and labels directly, such as images with their
classes.
"""

from collections.abc import Iterator

import numpy as np

from tfm.data.base import Data
from tfm.data.dataset import ROW_ARRAYS, ArraySpec, Raw
from tfm.data.textdata import TextData
from tfm.tasks.base import Features


def array_features(raw: Raw) -> Features:
  """Return inputs and labels unchanged, and float32 weights [B], which default to 1."""
  weights = raw.get('weights', np.ones(len(raw['sample'])))
  arrays = {name: value for name, value in raw.items() if name not in ROW_ARRAYS}
  return arrays | {'weights': weights.astype(np.float32)}


def array_specs(data: Data) -> dict[str, ArraySpec]:
  """Return the arrays of `array_features`."""
  return data.specs() | {'weights': ArraySpec((data.batch,), np.float32, 'B')}


def has_arrays(task: str, data: Data, *names: str) -> Iterator[str]:
  """Yield a sentence if `data` is text or lacks any of the arrays `names`."""
  if isinstance(data, TextData):
    yield f'task: {task} cannot use text rows. Expected a source of arrays, such as images or audio.'
    return
  specs = data.specs()
  for name in names:
    if name not in specs:
      yield f'task: {task} needs {name}, and the data has {", ".join(specs)}. Expected a source with {name}.'
