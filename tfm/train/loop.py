"""The training loop. Read next: `configs/shakespeare_char.py`."""

import collections
from collections.abc import Callable, Generator, Mapping, Sequence
import contextlib
import dataclasses
from pathlib import Path
import time
from typing import Any, NamedTuple, cast

import jax
import numpy as np

from tfm.core import errors
from tfm.data import TextData
from tfm.data.dataset import Dataset
from tfm.data.dataset import notes as data_notes
from tfm.data.prefetch import prefetch
from tfm.data.tokenizer import Vocabulary
from tfm.model.spec import Model
from tfm.train import (
  claim,
  compile_cache,
  constants,
  curriculum,
  evaluate,
  executable,
  goodput,
  memory,
  preflight,
  recover,
  report,
  resume,
  retry,
  rollout,
  shard,
)
from tfm.train import step as step_lib
from tfm.train.audit import Audit
from tfm.train.build import Built, build
from tfm.train.experiment import Experiment, Sample
from tfm.train.guard import Guard, Rewound
from tfm.train.heartbeat import Heartbeat
from tfm.train.metrics import Metrics
from tfm.train.saver import Checkpoints, workdir_of
from tfm.train.speed import Speed
from tfm.train.step import State

#: `(model, params, vocabulary, sample) -> text`. The caller passes it, because training does not
#: import decoding.
Sampler = Callable[[Model, Any, Vocabulary, Sample], str]

#: `(experiment, vocabulary of the data, shardings of the parameters, say) -> (parameters, files)`
#: of `init_from`. The caller passes it, because training does not import the readers of published
#: models. Checkpoints keep the files (see `saver`).
WarmStart = Callable[
  [Experiment, Vocabulary | None, Any, Callable[[str], None]], tuple[Any, Mapping[str, bytes]]
]

#: Steps that may be in flight on the devices before the metrics of the oldest are read.
_IN_FLIGHT = 2


class Trained(NamedTuple):
  """The result of a training run.

  Attributes:
    state: The final state (see `step.State`).
    scores: The metrics of the last evaluation, empty without a validation split.
  """

  state: State
  scores: dict[str, float | None]


def train(
  x: Experiment,
  workdir: str | Path,
  sample: Sampler | None = None,
  devices: Sequence[jax.Device] | None = None,
  warm_start: WarmStart | None = None,
  executable_file: str | Path | None = None,
  read_model: constants.ReadModel | None = None,
  complete: rollout.Complete | None = None,
) -> Trained:
  """Train a model for `x.steps` updates in total.

  Training continues from the last checkpoint of `workdir`, if there is one. A run that is killed
  and restarted ends with the same bits as an uninterrupted run.

  Args:
    x: The experiment.
    workdir: The folder of checkpoints and metrics. It is created if needed.
    sample: Generates the text sample of an evaluation. No sample by default.
    devices: The devices of the mesh. Defaults to all devices.
    warm_start: Reads the parameters of `x.init_from`.
    executable_file: The compiled step of `executable.save`. None compiles it here.
    read_model: Reads the further models of the task, such as a teacher.
    complete: Generates samples, for a task that learns from them.

  Returns:
    The final state, and the metrics of the last evaluation.

  Raises:
    UserError: The experiment cannot run, or another run uses the workdir.
    recover.Stopped: The limits of `x.recover` are reached, the disk is full or fails, SIGTERM
      arrived, or the workdir was taken over or removed. It has an exit status.
  """
  memory.keep_freed_memory()
  preflight.check(x, devices)
  rollout.check(x, complete)
  x = constants.described(x, read_model)
  workdir = workdir_of(workdir)

  clock = goodput.Goodput(workdir)

  with contextlib.ExitStack() as closing:
    closing.enter_context(recover.stop_on_full_disk(workdir))
    holds = closing.enter_context(claim.claimed(workdir))
    # All processes pass the claim together, so that each finds the heartbeats of the others.
    heart = closing.enter_context(Heartbeat(workdir, clock, x.recover.patience))
    dataset = x.data.open(x.task)
    if wrong := list(x.task.suits(x.model, dataset)):
      raise errors.UserError('\n'.join(wrong))
    phases = curriculum.Phases(x, dataset)
    # Data that ends before the last step is an error now, and not in that step.
    final = lambda: phases.batch('train', x.seed, x.steps - 1)
    retry.retried(final, f'data of step {x.steps}', print)
    built = build(x, devices)
    if executable_file is not None:
      if x.curriculum != curriculum.Curriculum():
        raise errors.UserError(
          'curriculum: is set, and an executable is for batches of one shape. Expected only one of '
          'them.'
        )
      with clock.within('compile'):
        built = built._replace(step=executable.load(executable_file, x, built))
    checkpoints = Checkpoints(workdir, x.record.keep)
    checkpoints.names = dataset.names
    checkpoints.data_files = getattr(dataset, 'files', {})
    models = constants.read(x, built.constants, dataset, read_model)
    checkpoints.models = constants.fingerprints(models)
    closing.callback(checkpoints.close)
    closing.callback(clock.write)
    audit = Audit(workdir)
    notes, trained = [*built.notes, *data_notes(dataset)], None
    while trained is None:
      state = _restore_or_start(x, built, checkpoints, dataset, warm_start, notes.append)
      first = int(state['step'])
      audit.resume(first)
      with contextlib.closing(Metrics(workdir, first, x.steps, x.task.shown)) as metrics:
        while notes:
          metrics.say(notes.pop(0))
        if first >= x.steps:
          metrics.say(f'{workdir}: is already trained for {first} steps (steps={x.steps}).')
        clock.step = first
        loop = _Loop(
          x,
          built,
          dataset,
          phases,
          models,
          checkpoints,
          audit,
          metrics,
          sample,
          complete,
          holds,
          heart,
        )
        with contextlib.suppress(Rewound), heart.naming_lost_processes():
          trained = loop.run(state)
        # Everything is on disk when this returns.
        with clock.within('save'):
          checkpoints.wait()
        if trained is not None:
          clock.write(done=True)
          if first < x.steps:
            _report_goodput(clock, metrics)
  return trained


def _report_goodput(clock: goodput.Goodput, metrics: Metrics) -> None:
  """Print and draw where the wall time of the workdir went."""
  if jax.process_index() == 0:
    rows = goodput.read(clock.path.parent)
    metrics.say(goodput.text(rows))
    metrics.summary(clock.step, goodput.summary(rows))
    report.draw_goodput(clock.path.parent, goodput.runs(rows))


def _restore_or_start(
  x: Experiment,
  built: Built,
  checkpoints: Checkpoints,
  dataset: Dataset,
  warm_start: WarmStart | None,
  say: Callable[[str], None],
) -> State:
  """Return the state of the last checkpoint, of `init_from`, or of fresh parameters."""
  found = resume.resume(checkpoints, x, built.like(), dataset.vocabulary, say)
  if found is not None:
    return found
  if x.init_from:
    assert warm_start is not None, 'init_from needs the argument warm_start'
    params, checkpoints.extra_files = warm_start(x, dataset.vocabulary, built.loaded, say)
    return built.start(params)
  return built.init(step_lib.init_key(x.seed))


@dataclasses.dataclass
class _Loop:
  """The training steps of a run, with evaluations and checkpoints.

  Metrics of a step are read while later steps run.
  """

  x: Experiment
  built: Built
  dataset: Dataset
  phases: curriculum.Phases
  models: dict[str, Any]
  checkpoints: Checkpoints
  audit: Audit
  metrics: Metrics
  sample: Sampler | None
  complete: rollout.Complete | None
  holds: Callable[[], None]
  heart: Heartbeat

  def __post_init__(self) -> None:
    self.clock = self.heart.clock
    self.local = shard.local_slice(self.built.batch_axis, self.x.data.batch)
    self.constants = self.built.extra(self.models)
    self.eval_fn = evaluate.measured(
      self.built.eval, self.x.task, self.dataset, shard.replicated(self.built.mesh), self.constants
    )
    self.rollouts: rollout.Rollouts | None = None
    if self.x.task.samples and self.complete is not None:
      self.rollouts = rollout.Rollouts(self.x, self.built, self.dataset, self.complete)
    self.guard = Guard(self.x, self.phases, self.audit, self.metrics.say)
    self.speed = Speed(self.x, list(self.built.mesh.devices.flat))
    self.pending: collections.deque[tuple[int, dict[str, jax.Array]]] = collections.deque()
    # What came before the first step, and when it started. None once it is reported.
    self.first: tuple[str, float] | None = None
    self.compiled: list[dict[str, tuple[int, ...]]] = []

  def run(self, state: State) -> Trained:
    """Run the remaining steps.

    Raises:
      recover.Stopped: After SIGTERM or SIGINT, once the state is saved.
      Rewound: After a loss spike.
    """
    x, scores, first = self.x, self.metrics.last_scores, int(state['step'])
    with contextlib.ExitStack() as closing:
      stopping = closing.enter_context(recover.Preemption())
      batches = cast(Generator[Any], prefetch(self.batch, first, x.steps))
      closing.enter_context(contextlib.closing(batches))
      self.clock.write()
      for step, batch in enumerate(self.clock.waits(batches), first + 1):
        if self.rollouts is not None:
          batch = self.rollouts.batch(step - 1, state['params'], batch)
        if (shapes := {name: array.shape for name, array in batch.items()}) not in self.compiled:
          self.compiled.append(shapes)
          self.compile(state, batch)
        state, values = self.built.step(state, batch, *self.constants)
        self.pending.append((step, values))
        self.read(_IN_FLIGHT)
        self.clock.write(now=False)
        stop, last = stopping.at(step), step == x.steps
        stop = stop and step % x.task.steps_per_rollout == 0
        evals = last or step % x.eval_every == 0
        saves = last or stop or step % x.save_every == 0
        if evals or saves:
          self.holds()
          self.read(0)
          with self.speed.paused():
            if evals:
              with self.clock.within('eval'):
                self.heart.barrier(f'evaluation of step {step}')
                scores = self.evaluate(step, state)
            if saves:
              self.save(step, state)
            with self.clock.within('eval'):
              self.metrics.draw()
        if stop and not last:
          self.heart.barrier(f'stop at step {step}')
          self.checkpoints.wait()
          name = stopping.received
          status = recover.INTERRUPTED if name == 'SIGINT' else recover.PREEMPTED
          message = f'{name}: step {step} is saved. Run the same command to continue.'
          raise recover.Stopped(status, message)
    return Trained(state, scores)

  def compile(self, state: State, batch: step_lib.Batch) -> None:
    """Compile the step ahead of its first call."""
    compiled: object = 'step read from a file'
    if hasattr(self.built.step, 'lower'):
      with self.clock.within('compile'), self.speed.paused():
        compiled = compile_cache.compiled(self.built.step, state, batch, *self.constants)
    if len(self.compiled) > 1:  # a later phase of the curriculum
      return
    setup = self.clock.seconds['setup']
    self.first = f'setup {setup:.1f} s, {compiled}', time.perf_counter()
    self.clock.enter('step')

  def save(self, step: int, state: State) -> None:
    """Start to save a checkpoint."""
    with self.clock.within('save'):
      self.heart.barrier(f'save of step {step}')
      recover.check_savable(step, state)
      if self.x.recover.threshold is not None:
        self.audit.save(step)
      self.checkpoints.save(step, state, self.x, self.dataset.vocabulary)
    self.clock.write()

  def batch(self, step: int) -> Any:
    """Return the batch of the update after `step` on the devices, or a raw batch for rollouts."""
    index = (step + self.audit.skipped_batches(step)) // self.x.task.steps_per_rollout
    size = self.phases.at(index).data.batch
    local = shard.local_slice(self.built.batch_axis, size)
    read = lambda: self.phases.batch('train', self.x.seed, index, local)
    raw = retry.retried(read, f'data of step {step + 1}', print)
    if self.rollouts is not None:
      return raw
    features = self.x.task.features(raw, self.dataset)
    return shard.put(features, self.built.batch.shardings, size, local)

  def read(self, left: int) -> None:
    """Read and write the metrics of all steps in flight but the last `left`."""
    task, record = self.x.task, self.x.record
    while len(self.pending) > left:
      at, values = self.pending.popleft()
      row = jax.device_get(values)
      self.clock.step = at
      if self.first is not None:
        (text, since), self.first = self.first, None
        self.metrics.say(f'started: {text}, first step {time.perf_counter() - since:.1f} s')
      skipped = self.guard.check(at, row, self.last_saved)
      if skipped or at % record.log_every == 0 or at == self.x.steps:
        names = dict.fromkeys((task.shown.name, *task.logged, 'grad_norm', 'lr'))
        self.metrics.train(
          at, {**{k: float(row[k]) for k in names}, **self.speed.read(at)}, skipped
        )
      self.speed.started(at)
      self.metrics.started(at)

  def last_saved(self) -> int:
    """Return the step of the last checkpoint, 0 if there is none."""
    self.checkpoints.wait()
    return max(self.checkpoints.steps, default=0)

  def evaluate(self, step: int, state: State) -> dict[str, float | None]:
    """Return the validation metrics, and write a sample or pictures."""
    x, dataset = self.x, self.dataset
    if 'val' not in dataset.splits:
      return {}
    params = step_lib.averaged(state)
    most = None if step == x.steps else x.record.eval_batches
    features = rollout.scored(x, dataset, self.complete, params)
    batches = evaluate.batches(
      x, dataset, self.built.batch, self.built.batch_axis, most=most, features=features
    )
    batches = map(self.clock.tick, batches)
    scored = self.metrics.counted(batches, evaluate.count(x, dataset, most=most)[0])
    parts = evaluate.parts(x, dataset, most=most)
    scores = evaluate.evaluate(x.task, self.eval_fn, params, scored, parts)
    self.metrics.eval(step, scores)
    vocabulary = dataset.vocabulary
    if (
      self.sample is not None
      and x.record.sample is not None
      and vocabulary is not None
      and _writes(x.model)
    ):
      self.metrics.sample(step, self.sample(x.model, params, vocabulary, x.record.sample))
    self.draw_pictures(params)
    return scores

  def draw_pictures(self, params: Any) -> None:
    """Draw images of the first validation batch, if the task supports it.

    This needs a single process, which holds the whole batch.
    """
    task, data = self.x.task, self.x.data
    if task.picture is None or isinstance(data, TextData) or jax.process_count() > 1:
      return
    raw = next(self.dataset.eval_batches('val', data.batch))
    features = task.features(raw, self.dataset)
    batch = shard.put(features, self.built.batch.shardings, data.batch, self.local)
    outputs = jax.tree.map(np.asarray, self.built.outputs(params, batch))
    self.metrics.pictures(task.picture(self.dataset, raw, outputs))


def _writes(model: Model) -> bool:
  """Return whether text can be sampled: a decoder-only model on a single process."""
  decodes = model.lm is not None and model.encoder is None and (model.causal or model.reads_prefix)
  return decodes and model.apart and jax.process_count() == 1
