"""Activations and optimizer states in the memory of the host."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from tfm.core import errors
from tfm.model import remat
from tfm.train.experiment import Experiment

#: The memory of the host that devices copy from and to.
_HOST = 'pinned_host'


def check(x: Experiment, devices: Sequence[jax.Device]) -> None:
  """Check that the devices have a memory of their own if something is stored on the host.

  Args:
    x: The experiment.
    devices: The devices of the run.

  Raises:
    UserError: They are CPUs.
  """
  stored: list[str] = []
  if remat.offloads(x.remat):
    stored.append(f'remat={x.remat}')
  if x.optim.memory == 'host':
    stored.append('optim.memory=host')
  if stored and devices[0].platform == 'cpu':
    raise errors.UserError(
      f'{" and ".join(stored)}: the devices are CPUs, which use the memory of the host anyway. '
      f'Expected TPUs or GPUs, or no {remat.HOST} and optim.memory=device.'
    )


def on_host(shardings: Any, shapes: Any) -> Any:
  """Return the shardings of an optimizer state with its arrays in the memory of the host."""
  place = lambda where, x: where.with_memory_kind(_HOST) if x.ndim else where
  return jax.tree.map(place, shardings, shapes)


def fetching(step: Callable[..., Any], opt_shardings: Any) -> Callable[..., Any]:
  """Return a train step that first copies its optimizer state to the devices.

  Args:
    step: `(state, batch, ...) -> (state, metrics)`.
    opt_shardings: The shardings of the optimizer state on the devices.

  Returns:
    A function with the same arguments and results.
  """

  def fetched(state: dict[str, Any], *rest: Any) -> Any:
    return step(state | {'opt': jax.device_put(state['opt'], opt_shardings)}, *rest)

  return fetched
