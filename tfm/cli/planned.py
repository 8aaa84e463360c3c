"""Plans and searches as tables, and the progress of a compilation."""

from collections.abc import Iterator, Sequence
import contextlib
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from tfm.cli.sheets import Sheet
from tfm.cli.sheets import show as show_sheets
from tfm.core import errors
from tfm.plan.chips import GIB
from tfm.plan.plan import Plan

if TYPE_CHECKING:
  from tfm.plan.search import Search
  from tfm.plan.topology import Topology
  from tfm.train.experiment import Experiment


def show(plan: Plan, markdown: bool = False) -> None:
  """Print a plan: the verdict, memory, time and collectives.

  Args:
    plan: The plan.
    markdown: Whether to print Markdown.
  """
  show_sheets(sheets(plan), markdown)
  for note in plan.notes:
    print(note)


def sheets(plan: Plan) -> list[Sheet]:
  """Return the tables of a plan."""
  found = [Sheet('plan', ('', 'value'), tuple(_summary(plan))), _memory(plan)]
  if plan.memory.largest and not plan.fits:
    found.append(_buffers(plan))
  if plan.work is not None and plan.work.collectives:
    found.append(_collectives(plan))
  return found


def _summary(plan: Plan) -> Iterator[tuple[str, str]]:
  chip, peak = plan.topology.chip, plan.memory.peak
  mesh = ' x '.join(f'{name}={n}' for name, n in plan.mesh.items() if n > 1)
  yield 'step', plan.step
  yield 'chips', f'{plan.topology.count} x {plan.topology.name}, mesh {mesh or "of one chip"}'
  if chip.hbm is None:
    yield 'memory per chip', f'{gib(peak)}'
  else:
    verdict = 'fits' if plan.fits else 'does not fit'
    yield verdict, f'{gib(peak)} of {gib(chip.hbm)} HBM per chip, {peak / chip.hbm:.0%}'
  yield f'{plan.unit} per step', f'{plan.tokens:,}'
  if plan.work is not None:
    yield 'FLOPs per chip', f'{plan.work.flops:.4g}{_share(plan)}'
    yield 'HBM traffic per chip', f'{plan.work.hbm_bytes:.4g} bytes'
    yield 'received per chip', f'{plan.work.collective_bytes:.4g} bytes'
  for name, seconds in plan.seconds.items():
    mark = ', the bound' if name == plan.bound else ''
    yield f'least time, {name}', f'{_time(seconds)}{mark}'
  if plan.floor:
    rate = plan.tokens / plan.floor / plan.topology.count
    yield 'step time, at least', f'{_time(plan.floor)}, {rate:,.0f} {plan.unit}/s per chip'
  if plan.mfu is not None:
    yield 'MFU, at most', f'{plan.mfu:.1%}'
  yield 'tracing, compiling', f'{plan.trace_seconds:.1f} s, {plan.compile_seconds:.1f} s'


def _share(plan: Plan) -> str:
  """Return how many of the FLOPs are the model's, without recomputation."""
  if plan.model_flops is None or plan.work is None or not plan.work.flops:
    return ''
  return f', the model without recomputation {plan.model_flops:.4g}'


def _memory(plan: Plan) -> Sheet:
  rows = []
  for name, size in plan.memory.bytes.items():
    rows.append((name, gib(size), f'{size / plan.memory.peak:.1%}'))
  rows.append(('all', gib(plan.memory.peak), ''))
  if plan.memory.host:
    rows.append(('on the host', gib(plan.memory.host), ''))
  return Sheet('memory per chip', ('class', 'size', 'share'), tuple(rows))


def _buffers(plan: Plan) -> Sheet:
  rows = tuple((gib(b.bytes), b.shape, b.source) for b in plan.memory.largest[:8])
  return Sheet('largest buffers at the peak', ('size', 'array', 'from'), rows)


def _collectives(plan: Plan) -> Sheet:
  assert plan.work is not None
  rows = tuple(
    (c.kind, c.axes, str(c.runs), f'{c.bytes / 1e9:.3g} GB') for c in plan.work.collectives
  )
  return Sheet('collectives per chip and step', ('kind', 'axes', 'runs', 'received'), rows)


def show_search(search: 'Search', markdown: bool = False) -> None:
  """Print the candidates of a search, best first, and why each other was not chosen."""
  columns = ('settings', 'predicted', 'compiled', 'least time', 'verdict')
  rows = []
  for c in search.candidates:
    compiled = '' if c.plan is None else gib(c.plan.memory.peak)
    seconds = c.predicted_seconds if c.plan is None else c.plan.floor
    rows.append((
      c.settings, gib(c.predicted_bytes), compiled, _time(seconds) if seconds else '', c.verdict,
    ))  # fmt: skip
  show_sheets([Sheet(search.title, columns, tuple(rows))], markdown)
  if search.flags:
    print(f'Best: {search.flags}')


def check_flags(x: 'Experiment', wanted: Sequence[str], step: str, save: str | None = None) -> None:
  """Raise a UserError for searches that exclude each other, or the config of no run."""
  if not hasattr(x, 'optim'):
    raise errors.UserError(
      f'--config: returns a {type(x).__name__}. Expected a config that returns an Experiment.'
    )
  if len(wanted) > 1:
    raise errors.UserError(
      f'--{wanted[0]}: cannot be combined with --{wanted[1]}. Expected only one.'
    )
  if save and (wanted or step != 'train'):
    raise errors.UserError(
      f'--save: writes the training step of the config, but --{(*wanted, "step")[0]} is set. '
      'Expected --step=train and no search.'
    )
  if wanted == ['fit'] and step != 'train':
    raise errors.UserError(f'--fit: searches training steps, but --step is {step}. Expected train.')


def fit(x: 'Experiment', topology: 'Topology', finalists: int, quiet: bool) -> 'Search':
  """Return the search of `tfm.plan.search.fit`, with a progress bar."""
  from tfm.plan import search

  with progress('compiling finalists', quiet) as step:
    return search.fit(x, topology, finalists, step)


def largest(x: 'Experiment', topology: 'Topology', step: str, which: str, quiet: bool) -> 'Search':
  """Return the search of the largest batch or context, with a progress bar.

  Args:
    x: The experiment.
    topology: The chips.
    step: The kind of program.
    which: 'max_batch' or 'max_context'.
    quiet: Whether to print nothing.

  Returns:
    The search.
  """
  from tfm.plan import search

  field = {'max_batch': 'batch', 'max_context': 'length'}[which]
  with progress(f'compiling for the largest {field}', quiet) as tick:
    return search.largest(x, topology, step, field, tick)


@contextlib.contextmanager
def progress(text: str, quiet: bool) -> Iterator[Any]:
  """Show a progress bar; yields a function `(done, total, what)`."""
  if quiet:
    yield lambda done, total, what: None
    return
  from rich import progress as bars
  from rich.console import Console

  columns = (
    bars.TextColumn('{task.description}'), bars.BarColumn(), bars.MofNCompleteColumn(),
    bars.TimeElapsedColumn(), bars.TimeRemainingColumn(),
  )  # fmt: skip
  with bars.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
    task = bar.add_task(text, total=None)

    def tick(done: int, total: int, what: str) -> None:
      bar.update(task, completed=done, total=total, description=f'{text}: {what}')

    yield tick


@contextlib.contextmanager
def waiting(text: str, quiet: bool) -> Iterator[None]:
  """Print the seconds of a long call on a terminal; one line elsewhere."""
  if quiet:
    yield
    return
  if not sys.stderr.isatty():
    print(f'{text} ...', file=sys.stderr, flush=True)
    yield
    return
  start, ended = time.perf_counter(), threading.Event()

  def count() -> None:
    while not ended.wait(1):
      print(
        f'\r{text} ... {time.perf_counter() - start:.0f} s', end='', file=sys.stderr, flush=True
      )

  thread = threading.Thread(target=count, daemon=True)
  thread.start()
  try:
    yield
  finally:
    ended.set()
    thread.join()
    print('\r' + ' ' * 79 + '\r', end='', file=sys.stderr, flush=True)


def gib(size: float) -> str:
  """Return bytes as GiB, or MiB below a tenth."""
  return f'{size / GIB:.2f} GiB' if size >= 0.1 * GIB else f'{size / 2**20:.2f} MiB'


def _time(seconds: float) -> str:
  return f'{seconds:.3g} s' if seconds >= 0.1 else f'{seconds * 1e3:.3g} ms'
