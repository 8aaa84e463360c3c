"""One run per workdir: live runs are protected, and dead ones do not block."""

import contextlib
import dataclasses
import errno
import json
import os
from pathlib import Path
import shutil
import signal
import subprocess
import sys
import threading
import time

import jax
import pytest

from tests.train.tiny import experiment
from tfm.core.errors import UserError
from tfm.train import claim, loop, recover, retry
from tfm.train.holder import Holder
from tfm.train.recover import Preemption

ROOT = Path(__file__).parents[2]
HOLD = """
import sys, time
from pathlib import Path
from tfm.train import claim
held = claim.take(Path(sys.argv[1]))
print('held', flush=True)
{then}
time.sleep(600)
"""


@contextlib.contextmanager
def holder(workdir, then=''):
  """Yield a process that holds a workdir."""
  command = [sys.executable, '-c', HOLD.format(then=then), str(workdir)]
  process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
  try:
    assert process.stdout.readline() == 'held\n'
    yield process
  finally:
    process.kill()
    process.wait()
    process.stdout.close()


def elsewhere(**fields):
  """Return the record of a process on another host, which beats every 50 ms."""
  here = Holder.current(0.05)
  return dataclasses.replace(here, token='other', host='far', pid=7, boot='other kernel', **fields)


def written(workdir, record):
  (workdir / claim.FILE).write_text(json.dumps(dataclasses.asdict(record)))


def test_second_process_is_refused_while_the_first_lives(tmp_path):
  with holder(tmp_path) as first:
    message = (
      rf'workdir: .* is in use by process {first.pid} on host \S+ since 20.*choose another '
      r'--workdir'
    )
    with pytest.raises(UserError, match=message):
      claim.take(tmp_path)
    with pytest.raises(UserError, match='in use'):
      claim.take(tmp_path)
    assert first.poll() is None
    assert claim.read(tmp_path / claim.FILE).pid == first.pid


def test_killed_holder_is_replaced_without_a_wait(tmp_path):
  with holder(tmp_path) as first:
    first.kill()
    first.wait()
    assert claim.read(tmp_path / claim.FILE).pid == first.pid
    start = time.monotonic()
    claim.take(tmp_path, say=pytest.fail).release()
    assert time.monotonic() - start < 1


def test_zombie_does_not_count_as_alive(tmp_path):
  with holder(tmp_path) as first:
    record = claim.read(tmp_path / claim.FILE)
    assert record.alive
    first.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, first.pid, os.WEXITED | os.WNOWAIT)
    assert not record.alive


def test_forked_child_does_not_keep_the_lock(tmp_path):
  with holder(tmp_path, then='import os; pid = os.fork(); pid and print(pid, flush=True)') as first:
    child = int(first.stdout.readline())
    first.kill()
    first.wait()
    claim.take(tmp_path, say=pytest.fail).release()
    os.kill(child, signal.SIGKILL)


def test_reused_process_id_does_not_count_as_alive(tmp_path):
  written(tmp_path, dataclasses.replace(Holder.current(0.05), born=1))
  claim.take(tmp_path, say=pytest.fail).release()


def test_released_workdir_names_no_holder(tmp_path):
  claim.take(tmp_path).release()
  assert claim.read(tmp_path / claim.FILE) is None
  claim.take(tmp_path, say=pytest.fail).release()


def test_live_process_is_found_by_its_record_without_file_locks(tmp_path, monkeypatch):
  monkeypatch.setattr(claim, '_lock', lambda file: True)
  with holder(tmp_path) as first, pytest.raises(UserError, match=f'process {first.pid} '):
    claim.take(tmp_path)


def test_silent_holder_of_another_host_is_replaced_after_a_wait(tmp_path):
  record, output = elsewhere(), []
  written(tmp_path, record)
  start = time.monotonic()
  held = claim.take(tmp_path, output.append)
  assert time.monotonic() - start >= claim.MISSED * record.every
  assert len(output) == 1
  assert 'names process 7 on host far' in output[0]
  held.release()


def test_beating_holder_of_another_host_is_not_replaced(tmp_path):
  # Its clock is an hour off, which must not matter.
  record, ended = elsewhere(since='1999-01-01 00:00:00 UTC'), threading.Event()

  def beats():
    for beat in range(1, 1000):
      written(tmp_path, dataclasses.replace(record, beat=beat))
      if ended.wait(record.every):
        return

  written(tmp_path, record)
  thread = threading.Thread(target=beats)
  thread.start()
  try:
    with pytest.raises(UserError, match='in use by process 7 on host far since 1999'):
      claim.take(tmp_path, lambda line: None)
  finally:
    ended.set()
    thread.join()


def test_counter_of_a_holder_rises(tmp_path, monkeypatch):
  monkeypatch.setattr(claim, 'BEAT', 0.02)
  held, path = claim.take(tmp_path), tmp_path / claim.FILE
  first, end = claim.read(path), time.monotonic() + 10
  while claim.read(path).beat < first.beat + 2 and time.monotonic() < end:
    time.sleep(0.01)
  assert claim.read(path).beat >= first.beat + 2
  held.release()


def test_run_that_was_replaced_stops_and_leaves_the_record(tmp_path, monkeypatch):
  monkeypatch.setattr(claim, 'BEAT', 0.02)
  held = claim.take(tmp_path)
  other = elsewhere()
  (tmp_path / claim.FILE).unlink()
  written(tmp_path, other)
  with pytest.raises(recover.Stopped, match='was taken over by process 7 on host far') as error:
    held.check()
  assert error.value.status == recover.LOST == 69
  time.sleep(0.1)
  held.release()
  assert claim.read(tmp_path / claim.FILE) == other


def test_training_refuses_a_held_workdir_and_frees_its_own(tmp_path):
  x = experiment(tmp_path, steps=1)
  (tmp_path / 'w').mkdir()
  with holder(tmp_path / 'w'):
    with pytest.raises(UserError, match=r'workdir: .*w is in use by process'):
      loop.train(x, tmp_path / 'w')
    assert not (tmp_path / 'w' / 'checkpoints').exists()
  assert int(loop.train(x, tmp_path / 'w').state['step']) == 1
  assert claim.read(tmp_path / 'w' / claim.FILE) is None


def test_training_stops_before_it_saves_into_a_lost_workdir(tmp_path, monkeypatch):
  x = experiment(tmp_path, steps=2, save_every=1)

  def taken(self):
    raise recover.Stopped(recover.LOST, 'taken over')

  monkeypatch.setattr(claim.Claim, 'check', taken)
  with pytest.raises(recover.Stopped):
    loop.train(x, tmp_path / 'w')
  assert not list((tmp_path / 'w' / 'checkpoints').glob('[0-9]*'))


def test_every_process_raises_for_a_held_workdir(tmp_path):
  experiment(tmp_path)  # writes the text
  (tmp_path / 'w').mkdir()
  with holder(tmp_path / 'w'):
    flags = [f for f in os.environ['XLA_FLAGS'].split() if 'device_count' not in f]
    command = ['bash', 'scripts/launch/local.sh', '2', sys.executable, '-m', 'tests.train.tiny']
    done = subprocess.run(
      [*command, str(tmp_path), str(tmp_path / 'w'), '{}'],
      env=os.environ | {'XLA_FLAGS': ' '.join(flags)},
      cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
  assert done.returncode != 0
  assert (done.stdout + done.stderr).count('Expected one run per workdir') == 2


def test_removed_workdir_is_named_by_check_and_by_errors(tmp_path):
  message = r'^workdir: .*w was removed or moved, or its mount is gone. Training stops and saves'

  def within(act):
    (workdir := tmp_path / 'w').mkdir()
    with claim.claimed(workdir) as check:
      check()
      shutil.rmtree(workdir)
      act(check, workdir)

  for act in (lambda check, _: check(), lambda _, workdir: (workdir / 'a').write_text('')):
    with pytest.raises(recover.Stopped, match=message) as e:
      within(act)
    assert e.value.status == recover.LOST
    assert not (tmp_path / 'w').exists()


def test_run_survives_a_data_error_but_no_removed_workdir(tmp_path, monkeypatch, capsys):
  was, workdir = Preemption.at, tmp_path / 'w'

  def at(self, step):
    if step == 3:
      shutil.rmtree(workdir)
    return was(self, step)

  monkeypatch.setattr(Preemption, 'at', at)
  monkeypatch.setattr(retry, 'PAUSES', (0.0,))
  x = experiment(tmp_path)
  failed = []

  def fails_once(split, *args):
    if not failed and split == 'train':
      failed.append(True)
      raise OSError(errno.EIO, 'Input/output error')
    return batch(split, *args)

  dataset = x.data.open(x.task)
  batch, dataset.batch = dataset.batch, fails_once
  monkeypatch.setattr(type(x.data), 'open', lambda self, task: dataset)
  with pytest.raises(recover.Stopped, match=r'w was removed or moved, or its mount is gone'):
    loop.train(x, workdir, devices=jax.devices()[:1])
  assert 'data of step 6: [Errno 5] Input/output error. Try 2 of 2' in capsys.readouterr().out
  assert not workdir.exists()
