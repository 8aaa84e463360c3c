"""Checks of an experiment against this machine, before any data is opened."""

from collections.abc import Sequence

import jax

from tfm.core import config, errors
from tfm.train import distributed, shard
from tfm.train.experiment import Experiment


def mistakes(x: Experiment, devices: Sequence[jax.Device] | None = None) -> list[str]:
  """Return everything that keeps an experiment from running on these devices.

  Args:
    x: The experiment.
    devices: The devices of the mesh; None uses all devices of the run.

  Returns:
    Sentences with their paths: violations of the config, missing data files, a mesh that does not
    fit the devices, and a batch that the devices do not divide.
  """
  if not isinstance(x, Experiment):
    return [f'config: is a {type(x).__name__}. Expected a tfm.train.Experiment.']
  distributed.start()
  found = config.violations(x)
  data = [s for s in found if s.startswith('data') and not s.startswith('data.batch')]
  if not data:
    try:
      x.data.check_sources()
    except errors.UserError as error:
      found.append(str(error))
    except OSError as error:
      found.append(f'data: {error.filename}: {error.strerror}. Expected a readable file.')
  if any(sentence.startswith('mesh') for sentence in found):
    return found
  try:
    mesh = shard.make_mesh(x.mesh, devices)
    if x.data.batch > 0 and x.optim.accumulate > 0:
      shard.check_batch(mesh, x.mesh.table(), x.data.batch, x.optim.accumulate)
  except errors.UserError as error:
    found.append(str(error))
  return found


def check(x: Experiment, devices: Sequence[jax.Device] | None = None) -> None:
  """Raise a ConfigError that lists everything that keeps an experiment from running."""
  if found := mistakes(x, devices):
    raise errors.ConfigError('\n'.join(found))
