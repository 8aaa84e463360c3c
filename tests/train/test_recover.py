import errno

import jax
import jax.numpy as jnp
import pytest

from tests.train.tiny import experiment
from tfm.core.errors import UserError
from tfm.train import checkpoint, loop, recover, saver

ONE = jax.devices()[:1]


def test_non_finite_parameters_are_not_saved():
  recover.check_savable(3, {'params': {'w': jnp.ones([2])}})
  with pytest.raises(
    recover.Stopped, match=r'^step 3: some parameters are not finite after the update'
  ):
    recover.check_savable(3, {'params': {'w': jnp.array([1, jnp.inf])}})


def test_full_disk_keeps_the_last_complete_checkpoint(tmp_path, monkeypatch):
  was = saver.Checkpoints.save

  def save(self, step, *args):
    if step > 2:
      raise OSError(errno.ENOSPC, 'No space left on device')
    was(self, step, *args)

  monkeypatch.setattr(saver.Checkpoints, 'save', save)
  with pytest.raises(
    recover.Stopped, match=r'w: no space is left on the disk. Training stops, and the last complete'
  ) as e:
    loop.train(experiment(tmp_path), tmp_path / 'w', devices=ONE)
  assert e.value.status == 74
  assert checkpoint.load(tmp_path / 'w').step == 2


def test_full_disk_is_found_in_the_causes_of_an_error():
  root = ValueError('INTERNAL: write: No space left on device [errno 28]')
  error = RuntimeError('saving failed')
  error.__cause__ = root
  assert recover.is_full(error)
  assert not recover.is_full(RuntimeError('else'))


def test_vocabulary_smaller_than_the_tokenizer_is_an_error(tmp_path):
  with pytest.raises(
    UserError, match=r'^model.embed.vocab: is 200, but the tokenizer has 256 tokens'
  ):
    loop.train(experiment(tmp_path, model__embed__vocab=200), tmp_path / 'w', devices=ONE)


def test_workdir_in_the_cloud_is_an_error(tmp_path):
  with pytest.raises(
    UserError, match=r'^workdir: gs://bucket/run is not a directory. Expected a mounted directory'
  ):
    loop.train(experiment(tmp_path), 'gs://bucket/run', devices=ONE)


def test_workdir_that_is_a_file_is_an_error(tmp_path):
  (tmp_path / 'w').write_text('')
  with pytest.raises(UserError, match=r'^workdir: cannot create .*w \(File exists\)'):
    loop.train(experiment(tmp_path), tmp_path / 'w', devices=ONE)
