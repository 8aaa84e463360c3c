import errno
import os
import signal
import threading
import time

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


@pytest.fixture
def ends(monkeypatch):
  ends = []
  monkeypatch.setattr(recover.os, '_exit', ends.append)
  return ends


def wait_for(condition):
  for _ in range(500):
    if condition():
      return
    time.sleep(0.01)
  pytest.fail('timed out')


@pytest.mark.parametrize(('name', 'status'), [('SIGTERM', 143), ('SIGINT', 130)])
def test_second_signal_ends_the_process_immediately(capfd, ends, name, status):
  number = getattr(signal, name)
  before = signal.getsignal(number)
  with recover.Preemption() as stopping:
    assert not stopping.at(1)
    os.kill(os.getpid(), number)
    wait_for(lambda: stopping.at(2))
    assert stopping.received == name
    assert not ends
    os.kill(os.getpid(), number)
    wait_for(lambda: ends == [status])
  assert signal.getsignal(number) == before
  text = capfd.readouterr().err
  assert f'{name}: the run saves and stops after this step. A second signal ends it at once' in text
  assert f'tfm train: {name}: ended at once, without a save.' in text


def test_second_signal_ends_a_main_thread_that_is_blocked(ends):
  lock = threading.Lock()
  lock.acquire()
  with recover.Preemption():
    for delay in (0.1, 0.3):
      threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT)).start()
    ended = threading.Thread(target=lambda: (wait_for(lambda: ends), lock.release()))
    ended.start()
    lock.acquire()  # no handler of Python raises here
    ended.join()
  assert ends == [130]


def test_interrupt_saves_and_continues(tmp_path, monkeypatch):
  was = recover.Preemption.at

  def at(self, step):
    if step == 1:
      os.kill(os.getpid(), signal.SIGINT)
      wait_for(lambda: was(self, step))
    return was(self, step)

  monkeypatch.setattr(recover.Preemption, 'at', at)
  with pytest.raises(
    recover.Stopped, match=r'^SIGINT: step 1 is saved. Run the same command to continue.'
  ) as e:
    loop.train(experiment(tmp_path), tmp_path / 'w', devices=ONE)
  assert e.value.status == recover.INTERRUPTED == 130
  assert checkpoint.load(tmp_path / 'w').step == 1
