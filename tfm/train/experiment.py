"""A training run as one frozen value. Next: `train/loop.py`."""

from collections.abc import Iterator
import dataclasses
import math
from typing import Literal

from tfm.core.precision import Precision
from tfm.data.base import Data
from tfm.data.stdlib import Stdlib
from tfm.model.remat import POLICIES
from tfm.model.spec import Model
from tfm.optim import AdamW, Optim
from tfm.parts.attend.auto import Auto
from tfm.parts.attend.base import Attend
from tfm.parts.context import LOOPS, Run
from tfm.tasks import CausalLM, Task
from tfm.train.mesh import Mesh


@dataclasses.dataclass(frozen=True)
class Sample:
  """The text that a language model generates at each evaluation."""

  prompt: str = '\n'
  tokens: int = 128
  temperature: float = 0.8

  def check(self) -> Iterator[str]:
    if self.tokens < 1:
      yield f'tokens: is {self.tokens}. Expected 1 or more, or sample=none.'
    if self.temperature < 0:
      yield f'temperature: is {self.temperature}. Expected 0 (greedy) or more.'


@dataclasses.dataclass(frozen=True)
class Record:
  """Metrics every `log_every` steps, the number of checkpoints to `keep`, and a text `sample` at
  each evaluation.

  The last evaluation covers the whole validation split. Those before it do too, or only
  `eval_batches` batches spread over it."""

  log_every: int = 10
  eval_batches: int | None = None
  keep: int = 2
  sample: Sample | None = Sample()

  def check(self) -> Iterator[str]:
    for name in ('log_every', 'eval_batches', 'keep'):
      if (value := getattr(self, name)) is not None and value < 1:
        yield f'{name}: is {value}. Expected 1 or more.'


@dataclasses.dataclass(frozen=True)
class Experiment:
  """A model, data, a task and an optimizer, for `steps` updates. The same value gives the same run.

  A checkpoint is saved every `save_every` steps and at the end; an evaluation runs every
  `eval_every` steps and at the end. `mesh`, `precision`, `remat`, `loop` and `attend` change how
  the run is computed, and its results only by rounding. Training starts from the matching
  parameters of the model in the folder `init_from`, published or tfm's.

  `init_vocab` decides where its token ids mean other tokens than those of the data. 'same' refuses,
  'keep' keeps the rows of token tables by id, 'remap' moves them by token text, and 'new'
  initialises the tables and the language-model head."""

  model: Model = Model()
  data: Data = dataclasses.field(default_factory=Stdlib)
  task: Task = CausalLM()
  optim: Optim = AdamW()
  steps: int = 1000
  seed: int = 0
  save_every: int = 500
  eval_every: int = 500
  mesh: Mesh = Mesh()
  precision: Precision = Precision()
  remat: str = 'none'
  loop: str = 'scan'
  attend: Attend = Auto()
  record: Record = Record()
  init_from: str = ''
  init_vocab: Literal['same', 'keep', 'remap', 'new'] = 'same'

  def run(self) -> Run:
    """Return the static arguments of the model."""
    return Run(self.precision, self.loop, self.remat, self.attend)

  def check(self) -> Iterator[str]:
    for name in ('steps', 'save_every', 'eval_every'):
      if (value := getattr(self, name)) < 1:
        yield f'{name}: is {value}. Expected 1 or more.'
    if not 0 <= self.seed < 2**63:
      yield f'seed: is {self.seed}. Expected 0 to 2**63 - 1.'
    if self.init_vocab != 'same' and not self.init_from:
      yield f'init_vocab: is {self.init_vocab}, and there is no model to start from. Expected init_from.'
    if self.remat not in POLICIES:
      yield f'remat: is {self.remat!r}. Known: {", ".join(POLICIES)}.'
    if self.loop not in LOOPS:
      yield f'loop: is {self.loop!r}. Known: {", ".join(LOOPS)}.'
    yield from self.task.fits(self.model)
    unusable = list(self.task.fits_data(self.data))
    yield from unusable
    if not unusable:
      yield from self._lengths()
    yield from self._batch()

  def _lengths(self) -> Iterator[str]:
    encoder = () if self.model.encoder is None else (self.model.encoder.max_positions,)
    lengths = self.task.sequence_lengths(self.data)
    for length, limit in zip(lengths, (*encoder, self.model.max_positions), strict=False):
      if limit is not None and length > limit:
        yield (
          f'data.length: rows of {length} tokens are longer than the {limit} rows of the position '
          f'table. '
          f'Expected at most {limit}, or another position encoding.'
        )

  def _batch(self) -> Iterator[str]:
    batch, pieces = self.data.batch, self.optim.accumulate
    if pieces > 1 and not self.task.sums_over_rows:
      yield (
        f'optim.accumulate: is {pieces}, and the loss of a row depends on its whole batch '
        f'({self.task.table().name_of(self.task)}). Expected 1.'
      )
    split = {
      name: size
      for name, size in self.mesh.shape.items()
      if size > 1 and name in self.mesh.table()['B']
    }
    ways = math.prod(split.values()) * pieces
    if batch > 0 and ways > 0 and batch % ways:
      said = [f'mesh.{name}={size}' for name, size in split.items()] + [
        f'optim.accumulate={pieces}'
      ] * (pieces > 1)
      near = sorted({max(1, batch // ways) * ways, -(-batch // ways) * ways})
      yield (
        f'data.batch: {batch} rows are not divided by {" x ".join(said)} = {ways}. '
        f'Expected a multiple of it, such as {" or ".join(map(str, near))}.'
      )
