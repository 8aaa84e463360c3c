"""All mistakes of an experiment are found before data is opened."""

import dataclasses

import jax
import pytest

from tests.train import tiny
from tfm.core.errors import ConfigError
from tfm.model.spec import Model
from tfm.train import Mesh, preflight


def test_valid_experiment_has_no_mistakes(tmp_path):
  assert preflight.mistakes(tiny.experiment(tmp_path), jax.devices()[:1]) == []


def test_mistakes_of_config_data_and_devices_are_listed(tmp_path):
  x = tiny.experiment(tmp_path)
  x = dataclasses.replace(
    x,
    steps=0,
    data=dataclasses.replace(x.data, batch=6, files=str(tmp_path / 'absent.txt')),
    mesh=Mesh(data=3),
  )
  found = preflight.mistakes(x, jax.devices()[:2])
  assert len(found) == 3
  assert found[0].startswith('steps: is 0.')
  assert 'absent.txt' in found[1]
  assert 'mesh: data=3 needs 3 devices' in found[2]
  with pytest.raises(ConfigError) as error:
    preflight.check(x, jax.devices()[:2])
  assert str(error.value).splitlines() == found


def test_batch_must_be_divided_by_the_devices(tmp_path):
  x = tiny.experiment(tmp_path)
  x = dataclasses.replace(x, data=dataclasses.replace(x.data, batch=3))
  (found,) = preflight.mistakes(x, jax.devices()[:2])
  assert found.startswith('data.batch: 3')


def test_config_of_another_class_is_a_mistake():
  (found,) = preflight.mistakes(Model())
  assert found == 'config: is a Model. Expected a tfm.train.Experiment.'
