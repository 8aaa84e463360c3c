"""`configs/pretrain.py` with every model of the zoo."""

import importlib.util
import pathlib

import pytest

from tfm import zoo
from tfm.core import config, errors
from tfm.tasks import CausalLM, MaskedLM, PermutationLM, SpanCorruption

_PATH = pathlib.Path(__file__).parents[2] / 'configs' / 'pretrain.py'


@pytest.fixture(scope='module')
def get_config():
  spec = importlib.util.spec_from_file_location('pretrain', _PATH)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config


def _reads_text(name):
  spec = zoo.get(name)
  return all(spec.tower(tower).vocab for tower in ('', *spec.towers))


@pytest.mark.parametrize('name', zoo.names())
def test_every_model_has_a_valid_experiment(get_config, name):
  if not _reads_text(name):
    with pytest.raises(errors.ConfigError, match='reads more than text'):
      get_config(name)
    return
  experiment = config.validate(get_config(name))
  assert experiment.model == zoo.get(name)
  assert not list(experiment.task.fits(experiment.model))


def test_task_depends_on_the_architecture(get_config):
  tasks = {
    'gpt2': CausalLM,
    'llama3-8b': CausalLM,
    'bert-base': MaskedLM,
    't5-small': SpanCorruption,
  }
  tasks['xlnet-base'] = PermutationLM
  assert {name: type(get_config(name).task) for name in tasks} == tasks


def test_unknown_model_error_has_a_near_name(get_config):
  with pytest.raises(errors.ConfigError, match=r"unknown model 'gpt-2'\. Did you mean 'gpt2'"):
    get_config('gpt-2')
