"""The config of a training run. Read next: `train/loop.py`."""

from collections.abc import Iterator, Mapping
import dataclasses
import math
from typing import Literal

from tfm.core.frozen import FrozenMap
from tfm.core.precision import Precision
from tfm.data.base import Data
from tfm.data.stdlib import Stdlib
from tfm.model import remat as remat_lib
from tfm.model.spec import Model
from tfm.optim import AdamW, Optim
from tfm.parts.attend.auto import Auto
from tfm.parts.attend.base import Attend
from tfm.parts.context import LOOPS, Pipeline, Run
from tfm.parts.quantize.base import Quantize
from tfm.tasks import CausalLM, Task
from tfm.train.curriculum import Curriculum
from tfm.train.mesh import Mesh


@dataclasses.dataclass(frozen=True)
class Sample:
  """The text that a language model generates at each evaluation.

  Attributes:
    prompt: The text to continue.
    tokens: The number of new tokens.
    temperature: The sampling temperature. 0 decodes greedily.
  """

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
  """Metrics, checkpoints and samples of a run.

  Attributes:
    log_every: Steps between two lines of training metrics.
    eval_batches: The number of batches of an evaluation, spread over the validation split.
      Defaults to the whole split, which the last evaluation always uses.
    keep: The number of checkpoints to keep.
    sample: The text to generate at each evaluation. None generates no text.
    skip_unreadable: Whether to continue from an earlier checkpoint if the last one cannot be read
      although it may be intact. By default this is an error. Damaged ones are always skipped.
  """

  log_every: int = 10
  eval_batches: int | None = None
  keep: int = 2
  sample: Sample | None = Sample()
  skip_unreadable: bool = False

  def check(self) -> Iterator[str]:
    for name in ('log_every', 'eval_batches', 'keep'):
      if (value := getattr(self, name)) is not None and value < 1:
        yield f'{name}: is {value}. Expected 1 or more.'


@dataclasses.dataclass(frozen=True)
class Recover:
  """What a run does about bad steps.

  A step is bad if its loss or gradient norm is not finite. Its update is skipped within the
  compiled step. A loss spike returns the run to its last checkpoint, and the batches since then
  are skipped. `audit.jsonl` lists both, with the samples.

  Attributes:
    skip: Bad steps in a row to skip. One more stops the run. 0 stops at the first bad step.
    skip_total: Bad steps of the whole run to skip.
    threshold: A loss is a spike above median + threshold x MAD (the median absolute deviation, at
      least 1% of the median) of the losses before. None looks for no spikes.
    window: The number of losses before.
    rewinds: Rewinds of the whole run. One more spike stops it.
    patience: Seconds without progress, after the first batch, until the run ends with the stacks of
      all threads in `heartbeats/`. None never ends it.
  """

  skip: int = 5
  skip_total: int = 100
  threshold: float | None = None
  window: int = 100
  rewinds: int = 3
  patience: float | None = 1800.0

  def check(self) -> Iterator[str]:
    for name, least in (('skip', 0), ('skip_total', 0), ('window', 2), ('rewinds', 0)):
      if (value := getattr(self, name)) < least:
        yield f'{name}: is {value}. Expected {least} or more.'
    if self.threshold is not None and not self.threshold > 0:
      yield f'threshold: is {self.threshold}. Expected a positive number, or none.'
    if self.patience is not None and not self.patience > 0:
      yield f'patience: is {self.patience}. Expected a positive number of seconds, or none.'


@dataclasses.dataclass(frozen=True)
class Experiment:
  """A training run. Equal experiments give equal results.

  Attributes:
    model: The model.
    data: The source of examples.
    task: The training objective.
    optim: The optimizer and its schedule.
    steps: The number of updates.
    seed: Seeds the parameters, dropout and the order of the data.
    save_every: Steps between two checkpoints. The last step is saved as well.
    eval_every: Steps between two evaluations. The last step is evaluated as well.
    mesh: The device mesh. Like `precision`, `remat`, `loop` and `attend`, it changes how the run
      is computed, and its results only by rounding.
    precision: The dtypes of parameters and computation.
    remat: The activations of layers that are stored for the backward pass (`tfm.model.remat`):
      none stores all, full only a layer's input, dots the outputs of weight matmuls, dots_batch
      those of all matmuls. Names store single activations, such as attention or residual@host.
    ffn_slices: The slices of the hidden layer of a GLU in the backward pass (`tfm.parts.context`).
    loop: How layers are compiled (`scan` or `unroll`).
    attend: The attention kernel.
    quantize: The number formats of projections, such as `int8` or `fp8`. Parameters and checkpoints
      keep their dtype.
    frozen: The number format of stored parameters without training (`optim.only`), such as
      `int4(weights=nf4)` for QLoRA (arXiv:2305.14314). Checkpoints have the same format.
    record: Metrics, checkpoints and samples.
    recover: What the run does about losses that are not finite, and about loss spikes.
    curriculum: Sequence lengths and batch sizes that change at given steps.
    init_from: A model folder, published or of tfm. Training starts from its matching parameters.
    models: The architectures of the further models of the task, by name. They are read from the
      folders that the task names (`tfm.train.constants`); do not set them.
    init_vocab: What to do if the token ids of `init_from` differ from those of the data. 'same'
      raises an error, 'keep' keeps the rows of token tables by id, 'remap' moves them by token
      text, and 'new' initialises the tables and the language-model head.
  """

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
  ffn_slices: int | None = None
  loop: str = 'scan'
  attend: Attend = Auto()
  quantize: Quantize = Quantize()
  frozen: Quantize = Quantize()
  record: Record = Record()
  recover: Recover = Recover()
  curriculum: Curriculum = Curriculum()
  init_from: str = ''
  models: Mapping[str, Model] = FrozenMap()
  init_vocab: Literal['same', 'keep', 'remap', 'new'] = 'same'

  def __post_init__(self) -> None:
    object.__setattr__(self, 'models', FrozenMap(self.models))

  def run(self) -> Run:
    """Return the static arguments of the model."""
    pipeline = Pipeline(self.mesh.microbatches, self.mesh.rounds)
    return Run(
      self.precision,
      self.loop,
      self.remat,
      self.attend,
      ffn_slices=self.ffn_slices,
      pipeline=pipeline,
      quantize=self.quantize,
    )

  def at(self, step: int) -> 'Experiment':
    """Return the experiment with the length and the batch size of a step."""
    data = self.curriculum.at(step, self.data)
    return dataclasses.replace(self, data=data, curriculum=Curriculum())

  def check(self) -> Iterator[str]:
    for name in ('steps', 'save_every', 'eval_every'):
      if (value := getattr(self, name)) < 1:
        yield f'{name}: is {value}. Expected 1 or more.'
    if not 0 <= self.seed < 2**63:
      yield f'seed: is {self.seed}. Expected 0 to 2**63 - 1.'
    if self.init_vocab != 'same' and not self.init_from:
      yield f'init_vocab: is {self.init_vocab}, but init_from is empty. Expected a model folder.'
    yield from remat_lib.check(self.remat)
    if self.ffn_slices is not None and self.ffn_slices < 1:
      yield f'ffn_slices: is {self.ffn_slices}. Expected 1 or more, or none.'
    if self.loop not in LOOPS:
      yield f'loop: is {self.loop!r}. Expected {" or ".join(LOOPS)}.'
    if self.optim.rounding != 'nearest' and self.precision.param != 'bfloat16':
      yield (
        f'optim.rounding: is {self.optim.rounding}, but parameters are {self.precision.param}. '
        'Expected nearest, or precision.param=bfloat16.'
      )
    yield from self._models()
    if self.frozen != Quantize() and not self.optim.only:
      yield (
        'frozen: all parameters are trained, which needs floats. Expected optim.only, such as '
        "'*/lora/*', or frozen=none."
      )
    if self.frozen != Quantize() and self.optim.ema is not None:
      yield 'frozen: quantized parameters have no average. Expected optim.ema=none.'
    if self.save_every % (updates := self.task.steps_per_rollout):
      yield (
        f'save_every: {self.save_every} is not divisible by the {updates} updates with the same '
        f'samples (task.updates). Expected a multiple, since checkpoints have no samples.'
      )
    yield from self.task.fits(self.model)
    unusable = list(self.task.fits_data(self.data))
    yield from unusable
    if not unusable:
      yield from self._lengths()
    yield from self._batch()
    yield from self._phases()

  def _phases(self) -> Iterator[str]:
    """Yield messages about the phases of the curriculum."""
    unusable = [*self.curriculum.check(), *self.curriculum.fits(self.data)]
    yield from self.curriculum.fits(self.data)
    for start in () if unusable else self.curriculum.starts():
      x = self.at(start)
      if x.data != self.data:
        for message in (*x.data.check(), *x.task.fits_data(x.data), *x._batch()):
          yield f'curriculum: from step {start}: {message}'

  def _models(self) -> Iterator[str]:
    defaults = self.task.models('a folder')
    for name, folder in self.task.models(self.init_from).items():
      if not folder:
        task = self.task.table().name_of(self.task)
        also = f', or init_from, which task.{name} defaults to' if defaults[name] else ''
        yield (
          f'task.{name}: is empty. {task} compares the trained model with this one. Expected the '
          f'folder of a model{also}.'
        )

  def _lengths(self) -> Iterator[str]:
    encoder = () if self.model.encoder is None else (self.model.encoder.max_positions,)
    lengths = self.task.sequence_lengths(self.data)
    for length, limit in zip(lengths, (*encoder, self.model.max_positions), strict=False):
      if limit is not None and length > limit:
        yield (
          f'data.length: sequences of {length} tokens exceed the position table of {limit} rows. '
          f'Expected at most {limit}, or another position encoding.'
        )

  def _batch(self) -> Iterator[str]:
    batch, pieces = self.data.batch, self.optim.accumulate
    if pieces > 1 and not self.task.loss_per_example:
      yield (
        f'optim.accumulate: is {pieces}, but the loss of {self.task.table().name_of(self.task)} '
        f'needs the whole batch. Expected 1.'
      )
    factors: dict[str, int] = {}
    for name, size in self.mesh.shape.items():
      if size > 1 and name in self.mesh.table()['B']:
        factors[f'mesh.{name}'] = size
    if pieces > 1:
      factors['optim.accumulate'] = pieces
    ways = math.prod(factors.values())
    if batch > 0 and ways > 0 and batch % ways:
      product = ' x '.join(f'{name}={size}' for name, size in factors.items())
      near = sorted({max(1, batch // ways) * ways, -(-batch // ways) * ways})
      yield (
        f'data.batch: {batch} is not divisible by {product}. '
        f'Expected a multiple of {ways}, such as {" or ".join(map(str, near))}.'
      )
