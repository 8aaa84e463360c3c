"""Decide what follows a bad step: skip its update, rewind the run, or stop it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tfm.data.dataset import Batches
from tfm.train.audit import Audit, intervals
from tfm.train.experiment import Experiment
from tfm.train.recover import DIVERGED, Stopped

#: The median absolute deviation counts as at least this share of the median.
_LEAST_DEVIATION = 0.01


class Rewound(Exception):
  """The run continues from its last checkpoint, with later batches."""


class Guard:
  """Checks the loss and the gradient norm of each step.

  All processes decide alike, because they have the same metrics and the same audit trail.

  Args:
    x: The experiment.
    dataset: The batches, to name the samples of bad ones.
    audit: The audit trail of the run.
    say: Prints a message.
  """

  def __init__(self, x: Experiment, dataset: Batches, audit: Audit, say: Callable[[str], None]):
    self._x, self._dataset, self._audit, self._say = x, dataset, audit, say

  def check(self, step: int, metrics: Mapping[str, Any], last_saved: Callable[[], int]) -> bool:
    """Return whether the update of a step was skipped.

    Args:
      step: The number of the step, from 1.
      metrics: Its metrics, with 'loss' and 'grad_norm'.
      last_saved: Returns the step of the last checkpoint, 0 if there is none.

    Raises:
      Rewound: The run has to return to that checkpoint.
      Stopped: The limits of `x.recover` are reached.
    """
    bad = {k: float(metrics[k]) for k in ('loss', 'grad_norm') if not np.isfinite(metrics[k])}
    if bad:
      self._skip(step, ', '.join(f'{k} is {v}' for k, v in bad.items()), last_saved)
      return True
    if self._x.recover.threshold is not None:
      self._find_spike(step, float(metrics['loss']), last_saved)
    return False

  def _skip(self, step: int, why: str, last_saved: Callable[[], int]) -> None:
    recover, audit = self._x.recover, self._audit
    samples = self._samples(step, step)
    batch = f'The batch has samples {_listed(samples)} of seed {self._x.seed}.'
    if not recover.skip:
      raise Stopped(DIVERGED, f'step {step}: {why}. Training stops. {batch} {_ADVICE}')
    audit.skip(step, samples, why)
    in_a_row = audit.bad_in_a_row()
    if in_a_row > recover.skip and recover.threshold is not None:
      self._rewind(step, f'{why} in {in_a_row} steps in a row', last_saved())
    if in_a_row > recover.skip or len(audit.bad) > recover.skip_total:
      limit = f'recover.skip={recover.skip}, recover.skip_total={recover.skip_total}'
      raise Stopped(
        DIVERGED,
        f'step {step}: {why}. Training stops after {in_a_row} bad steps in a row and '
        f'{len(audit.bad)} in total ({limit}). {batch} {audit.path} lists the others. {_ADVICE}',
      )
    self._say(f'step {step}: {why}. Its update is skipped. {batch}')

  def _find_spike(self, step: int, loss: float, last_saved: Callable[[], int]) -> None:
    recover, losses = self._x.recover, self._audit.losses
    assert recover.threshold is not None
    if len(losses) == recover.window:
      limit = spike_limit(losses, recover.threshold)
      if loss > limit:
        self._rewind(step, f'loss is {loss:.6g}, above the limit of {limit:.6g}', last_saved())
    losses.append(loss)
    del losses[: -recover.window]

  def _rewind(self, step: int, why: str, to: int) -> None:
    """Record a rewind and raise `Rewound`, or `Stopped` if none is left."""
    audit, most = self._audit, self._x.recover.rewinds
    samples = self._samples(to + 1, step)
    if len(audit.rewinds) >= most:
      raise Stopped(
        DIVERGED,
        f'step {step}: {why}. Training stops after {most} rewinds (recover.rewinds={most}). The '
        f'batches since step {to} have samples {_listed(samples)} of seed {self._x.seed}. '
        f'{audit.path} lists the earlier ones. {_ADVICE}',
      )
    self._say(
      f'step {step}: {why}. Training returns to step {to} and skips the batches in between, with '
      f'samples {_listed(samples)}: rewind {len(audit.rewinds) + 1} of {most}.'
    )
    audit.rewind(step, to, samples, why)
    raise Rewound

  def _samples(self, first: int, last: int) -> list[list[int]]:
    """Return the intervals of the sample numbers of steps `first` to `last`."""
    found: list[int] = []
    for before in range(first - 1, last):
      index = (before + self._audit.skipped_batches(before)) // self._x.task.steps_per_rollout
      found += self._dataset.batch('train', self._x.seed, index)['sample'].tolist()
    return intervals(found)


_ADVICE = (
  'Earlier checkpoints are kept. Look at these samples, and at grad_norm in metrics.jsonl before '
  'this step. Try a smaller optim.lr, a longer warm-up or optim.clip.'
)


def spike_limit(losses: Sequence[float], threshold: float) -> float:
  """Return the largest loss that is not a spike.

  Args:
    losses: The losses before.
    threshold: The number of median absolute deviations above the median.

  Returns:
    median + threshold x MAD. The MAD counts as at least 1% of the median.
  """
  median = float(np.median(losses))
  deviation = float(np.median(np.abs(np.asarray(losses) - median)))
  return median + threshold * max(deviation, _LEAST_DEVIATION * abs(median))


def _listed(samples: list[list[int]]) -> str:
  texts = []
  for a, b in samples:
    texts.append(f'{a}..{b}' if b > a else f'{a}')
  return ', '.join(texts[:8]) + (', ...' if len(texts) > 8 else '')
