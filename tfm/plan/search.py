"""Search for settings that fit: mesh, remat and micro-batches, or the largest batch or length."""

from collections.abc import Callable
import dataclasses
import math
from typing import Any

from tfm.core import config, errors
from tfm.plan.chips import GIB
from tfm.plan.estimate import Estimator, Settings
from tfm.plan.plan import Plan, plan
from tfm.plan.topology import Topology
from tfm.train.experiment import Experiment

#: `(finished compilations, all compilations, settings that compile now)`.
Tick = Callable[[int, int, str], None]

#: The most programs that one search compiles for each finalist, and for the largest value.
_TRIES, _STEPS = 2, 7
#: Rows of the table of candidates.
_SHOWN = 16


@dataclasses.dataclass
class Candidate:
  """Settings that a search considered.

  Attributes:
    settings: The settings, in few words.
    predicted_bytes: The predicted memory per chip.
    predicted_seconds: The predicted least time of a step; None if unknown.
    plan: The plan, if it was compiled.
    verdict: Why it was chosen or not.
    flags: The settings as flags.
  """

  settings: str
  predicted_bytes: float
  predicted_seconds: float | None
  plan: Plan | None = None
  verdict: str = ''
  flags: str = ''


@dataclasses.dataclass
class Search:
  """The result of a search.

  Attributes:
    title: What was searched.
    candidates: The candidates, best first.
    best: The plan of the best one, None if none fits.
    flags: The flags of the best one.
  """

  title: str
  candidates: list[Candidate]
  best: Plan | None
  flags: str

  def json(self) -> dict[str, Any]:
    """Return the search as JSON values."""
    rows = []
    for c in self.candidates:
      row = dataclasses.asdict(dataclasses.replace(c, plan=None))
      row['plan'] = None if c.plan is None else c.plan.json()
      rows.append(row)
    best = None if self.best is None else self.best.json()
    return {'title': self.title, 'flags': self.flags, 'best': best, 'candidates': rows}


def fit(x: Experiment, topology: Topology, finalists: int = 3, tick: Tick | None = None) -> Search:
  """Search mesh sizes, remat policies and micro-batches for the fastest step that fits.

  An analytic model ranks all candidates; only the finalists are compiled. The batch, and so the
  result of training, stays the same.

  Args:
    x: The experiment.
    topology: The chips.
    finalists: How many candidates that fit are compiled.
    tick: Called before each compilation.

  Returns:
    The candidates, and the plan of the best.

  Raises:
    UserError: No mesh of these chips divides the batch and the model.
  """
  estimator = Estimator(x, topology)
  ranked = estimator.ranked()
  if not ranked:
    raise errors.UserError(
      f'--fit: no mesh of {topology.count} chips divides the batch of {x.data.batch} and the axes '
      'of the model. Expected another data.batch or --topology.'
    )
  candidates = []
  for s in ranked:
    candidates.append(
      Candidate(s.text(), estimator.bytes(s), estimator.seconds(s), flags=s.flags())
    )
  best = _compile_finalists(x, topology, ranked, candidates, finalists, tick)
  _explain(candidates, best, topology)
  title = f'candidates for {topology}: {len(candidates)}, {min(len(candidates), _SHOWN)} shown'
  shown = sorted(candidates, key=lambda c: (c is not best, c.plan is None))[:_SHOWN]
  if best is None:
    return Search(title, shown, None, '')
  return Search(title, shown, best.plan, best.flags)


def _compile_finalists(
  x: Experiment,
  topology: Topology,
  ranked: list[Settings],
  candidates: list[Candidate],
  finalists: int,
  tick: Tick | None,
) -> Candidate | None:
  """Compile candidates in order until enough fit, and return the fastest that fits."""
  hbm, correction, fitting, tried = topology.chip.hbm, 1.0, 0, 0
  total = _TRIES * finalists
  for settings, candidate in zip(ranked, candidates, strict=True):
    if fitting >= finalists or tried >= total:
      break
    if hbm is not None and candidate.predicted_bytes * correction > 1.02 * hbm:
      continue
    if tick is not None:
      tick(tried, total, candidate.settings)
    candidate.plan = plan(settings.applied(x), topology)
    tried += 1
    fitting += candidate.plan.fits
    # The estimate ignores padding, and buffers that the compiler adds or shares.
    correction = candidate.plan.memory.peak / max(candidate.predicted_bytes, 1)
  compiled = [c for c in candidates if c.plan is not None and c.plan.fits]

  def order(c: Candidate) -> tuple[float, int]:
    assert c.plan is not None
    return c.plan.floor or 0.0, c.plan.memory.peak

  return min(compiled, key=order, default=None)


def _explain(candidates: list[Candidate], best: Candidate | None, topology: Topology) -> None:
  """Write the verdict of every candidate."""
  hbm, scale = topology.chip.hbm, 1.0
  if best is not None and best.plan and best.plan.floor and best.predicted_seconds:
    scale = best.plan.floor / best.predicted_seconds
  for c in candidates:
    if c.predicted_seconds:  # compiled programs move more bytes than the analytic model predicts
      c.predicted_seconds *= scale
    memory = c.predicted_bytes if c.plan is None else c.plan.memory.peak
    seconds = c.predicted_seconds if c.plan is None else c.plan.floor
    if c is best:
      c.verdict = 'chosen'
    elif hbm is not None and memory > hbm:
      how = 'predicted to need' if c.plan is None else 'needs'
      c.verdict = f'does not fit: {how} {memory / GIB:.2f} of {hbm / GIB:.2f} GiB'
    elif c.plan is None and best is not None:
      c.verdict = 'not compiled: predicted to be slower'
    elif best is not None and seconds and best.plan and best.plan.floor:
      bound = '' if c.plan is None else f', bound by {c.plan.bound}'
      c.verdict = f'{seconds / best.plan.floor:.2f} x the time of the chosen one{bound}'
    else:
      c.verdict = 'not compiled'


def largest(
  x: Experiment, topology: Topology, step: str, field: str, tick: Tick | None = None
) -> Search:
  """Search the largest batch or sequence length that fits.

  Memory is nearly linear in both, so few compilations suffice: the next value is where the line
  through the last two meets the limit.

  Args:
    x: The experiment.
    topology: The chips.
    step: The kind of program.
    field: 'batch' or 'length', a field of the data.
    tick: Called before each compilation.

  Returns:
    The compiled candidates, and the plan of the largest that fits.

  Raises:
    UserError: The chip has no known limit, or the data has no such field.
  """
  hbm = topology.chip.hbm
  if hbm is None:
    raise errors.UserError(
      f'--topology: {topology} has no known memory limit. Expected a TPU or a GPU.'
    )
  if not hasattr(x.data, field):
    raise errors.UserError(f'--max_{field}: the data has no {field}. Expected text.')
  unit = _unit(x, topology, field)
  most = x.model.max_positions if field == 'length' else None
  found: dict[int, Plan] = {}
  value = max(unit, getattr(x.data, field) // unit * unit)
  for n in range(_STEPS):
    if tick is not None:
      tick(n, _STEPS, f'data.{field}={value}')
    found[value] = plan(_with(x, field, value), topology, step)
    following = _following(found, unit, hbm, most)
    if following is None:
      break
    value = following
  fitting = [v for v, p in found.items() if p.fits]
  chosen = max(fitting, default=None)
  candidates = []
  for v in sorted(found, reverse=True):
    p = found[v]
    verdict = 'smaller' if p.fits else 'does not fit'
    verdict = 'chosen' if v == chosen else verdict
    candidates.append(
      Candidate(f'{field}={v}', p.memory.peak, p.floor, p, verdict, f'--config.data.{field}={v}')
    )
  flags = '' if chosen is None else f'--config.data.{field}={chosen}'
  best = None if chosen is None else found[chosen]
  return Search(f'largest data.{field} on {topology}', candidates, best, flags)


def _unit(x: Experiment, topology: Topology, field: str) -> int:
  """Return the step between values: a batch that the mesh divides, or 128 tokens."""
  sizes = x.mesh.sizes(topology.count)
  if field == 'batch':
    return math.prod(sizes[name] for name in x.mesh.table()['B']) * x.optim.accumulate
  return 128 * sizes.get('sequence', 1)


def _following(found: dict[int, Plan], unit: int, hbm: int, most: int | None) -> int | None:
  """Return the next value to compile, or None when the search is complete."""
  fits = [v for v, p in found.items() if p.fits]
  fails = [v for v, p in found.items() if not p.fits]
  low, high = max(fits, default=0), min(fails, default=0)
  if most is not None and low >= most // unit * unit:
    return None
  if high and high - low <= unit:
    return None
  if len(found) == 1:
    only = next(iter(found))
    guess = 2 * only if fits else max(unit, only // 2)
  else:
    (a, p), (b, q) = sorted(found.items())[-2:] if not fails else _around(found, low, high)
    slope = (q.memory.peak - p.memory.peak) / (b - a)
    guess = a + int((hbm - p.memory.peak) / slope) if slope > 0 else 2 * b
  guess = guess // unit * unit
  if high:
    guess = min(max(guess, low + unit), high - unit)
  else:
    guess = max(guess, low + unit)
  if most is not None:
    guess = min(guess, most // unit * unit)
  return None if guess in found or guess < unit else guess


def _around(found: dict[int, Plan], low: int, high: int) -> list[tuple[int, Plan]]:
  """Return the two compiled values next to the limit."""
  near = sorted(found, key=lambda v: (v not in (low, high), abs(v - high)))[:2]
  return [(v, found[v]) for v in sorted(near)]


def _with(x: Experiment, field: str, value: int) -> Experiment:
  changed: Experiment = config.override(x, f'data.{field}', str(value))
  return changed
