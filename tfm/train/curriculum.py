"""Sequence lengths and batch sizes that change at given steps."""

import bisect
from collections.abc import Iterator
import dataclasses
import itertools
from typing import Any, Protocol

from tfm.data.base import Data
from tfm.data.dataset import Dataset, Raw

#: ((step, value), ...): each value holds from its step on.
Steps = tuple[tuple[int, int], ...]


@dataclasses.dataclass(frozen=True)
class Curriculum:
  """Lengths and batch sizes of training as functions of the step.

  The largest of them are `data.length` and `data.batch`. Evaluation and `tfm plan` use these. Each
  combination is compiled when its first step comes.

  Attributes:
    length: ((0, 64), (1000, 128)) trains on sequences of 64 tokens, and of 128 from step 1000 on.
      Steps count the updates before. Empty is `data.length` in all steps.
    batch: The sizes of the global batch, in the same form.
  """

  length: Steps = ()
  batch: Steps = ()

  def starts(self) -> list[int]:
    """Return the steps at which a phase begins, with 0."""
    return sorted({0, *(step for step, _ in (*self.length, *self.batch))})

  def at(self, step: int, data: Data) -> Data:
    """Return the source with the length and the batch size of a step."""
    changed: dict[str, Any] = {}
    for name in ('length', 'batch'):
      if phases := getattr(self, name):
        changed[name] = [value for start, value in phases if start <= step][-1]
    return dataclasses.replace(data, **changed) if changed else data

  def fits(self, data: Data) -> Iterator[str]:
    """Yield a message for each reason why `data` cannot follow this curriculum."""
    for name in ('length', 'batch'):
      if not (phases := getattr(self, name)):
        continue
      if not hasattr(data, name):
        yield f'curriculum.{name}: is set, but the data has no {name}. Expected ().'
      elif (largest := max(value for _, value in phases)) != getattr(data, name):
        yield (
          f'curriculum.{name}: the largest is {largest}, and data.{name} is {getattr(data, name)}. '
          'Expected equal values.'
        )

  def check(self) -> Iterator[str]:
    for name in ('length', 'batch'):
      phases = getattr(self, name)
      steps = [step for step, _ in phases]
      if phases and (steps[0] != 0 or any(b <= a for a, b in itertools.pairwise(steps))):
        yield f'{name}: begins at the steps {steps}. Expected increasing steps from 0.'
      if any(value < 1 for _, value in phases):
        yield f'{name}: has the values {[value for _, value in phases]}. Expected 1 or more.'


class _Run(Protocol):
  """The fields of an experiment that are needed here."""

  @property
  def data(self) -> Data: ...
  @property
  def task(self) -> Any: ...
  @property
  def curriculum(self) -> Curriculum: ...


@dataclasses.dataclass(frozen=True)
class Phase:
  """The steps between two changes of the curriculum.

  Attributes:
    start: Its first step.
    data: The source with the length and the batch size of the phase.
    dataset: The open source.
    first: The batch of `dataset` at `start`.
  """

  start: int
  data: Data
  dataset: Dataset
  first: int


class Phases:
  """Training batches that follow a curriculum, as a pure function of (seed, step).

  Each length has its own endless sequence of shuffled epochs, and its own limits of a mixture. A
  phase continues the sequence of its length after the examples of earlier phases, from a whole
  batch on.

  Args:
    x: The experiment.
    dataset: The open data of `x`, with the largest length and batch.
  """

  def __init__(self, x: _Run, dataset: Dataset):
    shape = lambda data: (getattr(data, 'length', None), data.batch)
    opened: dict[tuple[int | None, int], Dataset] = {shape(x.data): dataset}
    examples: dict[int | None, int] = {}
    starts = x.curriculum.starts()
    self.phases: list[Phase] = []
    for start, end in itertools.zip_longest(starts, starts[1:]):
      data = x.curriculum.at(start, x.data)
      length, batch = shape(data)
      if (length, batch) not in opened:
        opened[length, batch] = data.open(x.task)
      first = -(-examples.get(length, 0) // batch)
      self.phases.append(Phase(start, data, opened[length, batch], first))
      if end is not None:
        examples[length] = (first + end - start) * batch

  def at(self, step: int) -> Phase:
    """Return the phase of a step."""
    return self.phases[bisect.bisect_right(self.phases, step, key=lambda p: p.start) - 1]

  def batch(self, split: str, seed: int, step: int, examples: slice | None = None) -> Raw:
    """Return the raw batch of a step. See `Dataset.batch`."""
    phase = self.at(step)
    return phase.dataset.batch(split, seed, phase.first + step - phase.start, examples)
