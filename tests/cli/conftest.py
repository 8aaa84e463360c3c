import pytest

from tests.plan.conftest import toy

__all__ = ['toy']

CONFIG = """
import dataclasses

@dataclasses.dataclass(frozen=True)
class Optim:
  lr: float = 1e-3

  def check(self):
    if self.lr <= 0:
      yield f'lr={self.lr} is not positive.'

@dataclasses.dataclass(frozen=True)
class Experiment:
  name: str = 'none'
  steps: int = 10
  optim: Optim = Optim()

def get_config(name='plain'):
  return Experiment(name)
"""


@pytest.fixture
def file(tmp_path):
  """Write a config file of an experiment without a model."""
  path = tmp_path / 'toy.py'
  path.write_text(CONFIG)
  return path


@pytest.fixture
def trained(monkeypatch):
  """Record calls of `loop.train`; they raise `trained.error` if it is set."""
  from tfm.core import config
  from tfm.train import loop, preflight

  class Calls(list):
    error = None

  calls = Calls()

  def train(experiment, workdir, sample, executable_file, **readers):
    assert executable_file is None
    assert all(map(callable, readers.values()))
    calls.append((experiment, workdir, sample))
    if calls.error:
      raise calls.error

  monkeypatch.setattr(loop, 'train', train)
  # The config of `file` is no Experiment.
  monkeypatch.setattr(preflight, 'mistakes', config.violations)
  return calls
