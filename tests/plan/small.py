"""A small experiment to plan."""

from tests.train import tiny


def experiment(folder, **changes):
  """Return tiny's experiment without dropout, sharded over fsdp."""
  fixed = {'model____dropout': 0, 'mesh__data': 1, 'mesh__fsdp': -1}
  return tiny.experiment(folder, **fixed | changes)
