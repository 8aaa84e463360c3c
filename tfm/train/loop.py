"""The training page: build, place, resume or start, go, close. Next: `configs/shakespeare_char.py`."""

import collections
from collections.abc import Callable, Generator, Sequence
import contextlib
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax

from tfm.core import config, errors
from tfm.data import prefetch
from tfm.data.tokenizer import Vocabulary
from tfm.model import transformer
from tfm.model.spec import Model
from tfm.train import checkpoint, distributed, evaluate, memory, recover, shard
from tfm.train import step as step_lib
from tfm.train.experiment import Experiment, Sample
from tfm.train.metrics import Metrics
from tfm.train.saver import Checkpoints, workdir_of
from tfm.train.speed import Speed
from tfm.train.step import State

#: `(model, params, vocabulary, sample) -> text`, given by the caller: training does not know how to generate.
Sampler = Callable[[Model, Any, Vocabulary, Sample], str]

#: `(experiment, shardings of the parameters, say) -> parameters` of `init_from`, given by the caller: training does not
#: know of published models.
Begin = Callable[[Experiment, Any, Callable[[str], None]], Any]

#: Steps that may be under way on the devices before the metrics of the oldest are read.
_IN_FLIGHT = 2


class Trained(NamedTuple):
  """The end of a run: its state, and the last evaluation (empty if there is no validation text)."""

  state: State
  scores: dict[str, float | None]


def train(
  x: Experiment,
  workdir: str | Path,
  sample: Sampler | None = None,
  devices: Sequence[jax.Device] | None = None,
  begin: Begin | None = None,
) -> Trained:
  """Trains `x` for `x.steps` updates in all, going on from the last checkpoint of `workdir`.

  A run that is killed and started again ends with the same bits as one that was not.

  Raises: UserError for what cannot be run; recover.Stopped, with an exit status, for NaN, a full disk and SIGTERM.
  """
  # Build: from specs to functions.
  memory.keep_freed()
  distributed.start()
  config.validate(x)
  workdir = workdir_of(workdir)
  corpus = x.task.open(x.data)
  if wrong := list(x.task.suits(x.model, corpus)):
    raise errors.UserError('\n'.join(wrong))
  tx = x.optim.make(x.steps, transformer.param_letters(x.model))

  # Place: from letters to devices. No device ever holds more than its share of the state.
  mesh, rules = shard.make_mesh(x.mesh, devices), x.mesh.table()
  shard.check_batch(mesh, rules, x.data.batch, x.optim.accumulate)
  shapes = step_lib.shapes(x, tx)
  where, rules, notes = shard.shardings(mesh, rules, step_lib.letters(x, tx), shapes)
  rows, whole = shard.rows(mesh, rules), shard.whole(mesh)
  mine = shard.my_rows(rows, x.data.batch)
  init = jax.jit(step_lib.make_init(x, tx), out_shardings=where)
  step_fn = jax.jit(
    shard.within(mesh, rules, step_lib.make_step(x, tx)),
    donate_argnums=0,
    in_shardings=(where, rows),
    out_shardings=(where, whole),
  )
  sums = shard.within(mesh, rules, evaluate.make_eval(x, corpus.byte_lengths))
  eval_fn = jax.jit(sums, out_shardings=whole)

  with contextlib.ExitStack() as closing:
    closing.enter_context(recover.full_disks_told(workdir))
    # Resume, or start.
    checkpoints = Checkpoints(workdir, x.record.keep)
    closing.callback(checkpoints.close)
    like = jax.tree.map(lambda s, w: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=w), shapes, where)
    said: list[str] = []
    found = checkpoint.resume(checkpoints, x, like, corpus.tokenizer, said.append)
    if found is not None:
      state = found
    elif x.init_from:
      assert begin is not None, 'init_from wants a caller that knows how to read models'
      start = jax.jit(step_lib.make_begin(x, tx), out_shardings=where, donate_argnums=0)
      state = start(begin(x, where['params'], said.append))
    else:
      state = init(step_lib.init_key(x.seed))
    first = int(state['step'])
    metrics = closing.enter_context(contextlib.closing(Metrics(workdir, first, x.steps)))
    for line in [*notes, *said]:
      metrics.say(line)
    if first >= x.steps:
      metrics.say(f'{workdir}: is trained for {first} steps already, and steps={x.steps}.')

    # Go. The metrics of a step are read while later ones run.
    def batch_of(step: int) -> step_lib.Batch:
      raw = corpus.batch('train', x.seed, step, mine)
      return shard.put(x.task.features(raw, corpus.tokenizer, x.data.isolate), rows, x.data.batch, mine)

    def look(step: int) -> dict[str, float | None]:
      if 'val' not in corpus.splits:
        return {}
      params = step_lib.averaged(state)
      most = None if step == x.steps else x.record.eval_batches
      scored = metrics.counted(evaluate.batches(x, corpus, rows, most=most), evaluate.count(x, corpus, most=most)[0])
      found = evaluate.evaluate(eval_fn, params, scored)
      metrics.eval(step, found)
      if sample is not None and x.record.sample is not None and _writes(x.model):
        metrics.sample(step, sample(x.model, params, corpus.tokenizer, x.record.sample))
      return found

    def read(left: int) -> None:
      while len(pending) > left:
        at, values = pending.popleft()
        row = jax.device_get(values)
        recover.check_finite(at, row, corpus, x.seed)
        if at % x.record.log_every == 0 or at == x.steps:
          metrics.train(at, {**{k: float(row[k]) for k in ('loss_nats', 'grad_norm', 'lr')}, **speed.read(at)})
        speed.started(at)

    pending: collections.deque[tuple[int, dict[str, jax.Array]]] = collections.deque()
    speed, scores = Speed(x, list(mesh.devices.flat)), metrics.last_scores
    stopping = closing.enter_context(recover.Preemption())
    batches = closing.enter_context(contextlib.closing(cast(Generator, prefetch(batch_of, first, x.steps))))
    for step, batch in enumerate(batches, first + 1):
      state, values = step_fn(state, batch)
      pending.append((step, values))
      read(_IN_FLIGHT)
      stop, last = stopping.at(step), step == x.steps
      evals, saves = last or step % x.eval_every == 0, last or stop or step % x.save_every == 0
      if evals or saves:
        read(0)
        with speed.paused():
          scores = look(step) if evals else scores
          if saves:
            recover.check_savable(step, state)
            checkpoints.save(step, state, x, corpus.tokenizer)
          metrics.draw()
      if stop and not last:
        checkpoints.wait()
        raise recover.Stopped(recover.PREEMPTED, f'SIGTERM: step {step} is saved. The same command goes on from there.')

    # Close: all is on disk when this returns.
    checkpoints.wait()
  return Trained(state, scores)


def _writes(model: Model) -> bool:
  """Whether the model can go on with a text, here: one process holds all of its parameters."""
  says = model.lm is not None and model.encoder is None and (model.causal or model.reads_prefix)
  return says and model.apart and jax.process_count() == 1
