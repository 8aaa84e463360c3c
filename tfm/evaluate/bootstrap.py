"""Values of metrics with 95% intervals from resampled examples."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tfm.evaluate.metrics import TABLE, Measured, References

#: Resampled corpora of an interval.
RESAMPLES = 1000


class Score(NamedTuple):
  """A metric of a corpus.

  Attributes:
    value: The metric of all examples.
    low: The lower end of the 95% interval.
    high: The upper end.
    note: The settings of the metric.
  """

  value: float
  low: float
  high: float
  note: str = ''


def measure(measured: Measured, seed: int = 0, resamples: int = RESAMPLES) -> Score:
  """Return the value of a metric and its percentile interval (Efron, 1979).

  Args:
    measured: The statistics of each example.
    seed: The seed of the resampling.
    resamples: The number of corpora of the same size that are drawn with replacement.

  Returns:
    The score with its interval from the 2.5th to the 97.5th percentile.
  """
  rows, value = measured.rows, measured.value
  low, high = interval(rows, value, seed, resamples)
  return Score(value(rows.sum(0)), low, high, measured.note)


def interval(
  rows: NDArray[np.float64],
  value: Callable[[NDArray[np.float64]], float],
  seed: int = 0,
  resamples: int = RESAMPLES,
) -> tuple[float, float]:
  """Return the 95% percentile interval of a function of sums.

  Args:
    rows: The statistics of each example [n, k].
    value: Returns the metric of the sums [k].
    seed: The seed of the resampling.
    resamples: The number of resampled corpora.

  Returns:
    The 2.5th and the 97.5th percentile.
  """
  rng = np.random.default_rng(seed)
  n = len(rows)
  values = [value(rows[rng.integers(n, size=n)].sum(0)) for _ in range(resamples)]
  low, high = np.percentile(values, [2.5, 97.5])
  return float(low), float(high)


def score(
  names: Sequence[str], outputs: Sequence[str], references: References, seed: int = 0
) -> dict[str, Score]:
  """Return metrics of outputs with their intervals.

  Args:
    names: Rows of `tfm.evaluate.metrics.TABLE`.
    outputs: A text for each example.
    references: One or more right texts for each example.
    seed: The seed of the resampling.

  Returns:
    The scores by name, from 0 to 100 (error rates may exceed 100).

  Raises:
    UserError: A metric is unknown, or its package is missing.
  """
  metrics = {name: TABLE[name] for name in names}
  return {name: measure(of(outputs, references), seed) for name, of in metrics.items()}
