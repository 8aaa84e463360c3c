import sys
import types

import pytest

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
  """A config file of an experiment that trains nothing."""
  path = tmp_path / 'toy.py'
  path.write_text(CONFIG)
  return path


@pytest.fixture
def trained(monkeypatch):
  """The calls of `train` that the command has made."""
  calls = []
  loop = types.ModuleType('tfm.train.loop')
  loop.train = lambda experiment, workdir: calls.append((experiment, workdir))
  package = types.ModuleType('tfm.train')
  package.loop = loop
  monkeypatch.setitem(sys.modules, 'tfm.train', package)
  monkeypatch.setitem(sys.modules, 'tfm.train.loop', loop)
  return calls
