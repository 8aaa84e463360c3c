"""Heartbeats: the end of runs that hang, and the names of late processes."""

import dataclasses
import json
import re

import jax
import pytest

from tests.train.test_resume import program
from tfm.train import heartbeat, recover
from tfm.train.goodput import Goodput
from tfm.train.heartbeat import Heartbeat


@pytest.fixture
def heart(tmp_path):
  """A heartbeat without a running thread. It lists its ends."""
  ends = []
  clock = Goodput(tmp_path)
  clock.enter('step')
  heart = Heartbeat(tmp_path, clock, 20.0, lambda *end: ends.append(end))
  heart.folder.mkdir()
  heart.ends = ends
  return heart


def other(heart, **fields):
  """Write the record of process 1."""
  beat = dataclasses.replace(heart.beat(), process=1, host='slow-host', **fields)
  (heart.folder / '1.json').write_text(json.dumps(dataclasses.asdict(beat)))


def test_hang_ends_the_process_with_stacks(heart):
  for _ in range(4):
    heart.watch()
  assert not heart.ends
  heart.watch()
  ((status, message),) = heart.ends
  assert status == recover.HUNG == 70
  assert 'step 0, step, no progress for 20 s: no progress for 20 s (recover.patience=20)' in message
  stacks = (heart.folder / '0.stacks.txt').read_text()
  assert 'test_hang_ends_the_process_with_stacks' in stacks


def test_any_progress_resets_the_patience(heart):
  for n in range(40):
    if n % 4 == 0:
      heart.clock.tick(None)
    heart.watch()
  assert not heart.ends


def test_preparing_data_may_take_any_time(heart):
  heart.clock.enter('setup')
  for _ in range(40):
    heart.watch()
  assert not heart.ends


def test_late_process_and_its_barrier_are_named(heart):
  heart._count, heart.clock.step = 2, 7
  other(heart, step=6, phase='save', barrier='save of step 6', still=15.0, waited=3.0)
  for _ in range(5):
    heart.watch()
  message = heart.ends[0][1]
  assert (
    "Late: process 1 on slow-host: step 6, save at barrier 'save of step 6', no progress for 15 s."
    in message
  )
  assert 'Waits for data, longest first: process 1 on slow-host 3.0 s, process 0 on' in message


def test_lost_process_ends_the_others(heart):
  heart._count, heart._patience = 2, None
  other(heart)
  for _ in range(heartbeat.MISSED + 1):
    heart.watch()
  status, message = heart.ends[0]
  assert status == recover.HUNG
  assert 'no sign of life for 80 s from process 1 on slow-host: step 0, step' in message


def test_error_of_a_lost_process_names_it(heart, monkeypatch, capsys):
  monkeypatch.setattr(heartbeat.time, 'sleep', lambda seconds: None)
  heart._count = 2
  for phase, ends in (('ended', 0), ('step', 1)):
    other(heart, phase=phase)
    with pytest.raises(ValueError, match='Gloo'), heart.naming_lost_processes():
      raise ValueError('Gloo all-reduce failed\nmore')
    assert len(heart.ends) == ends
    assert ': step 0, step: Gloo all-reduce failed\n' in capsys.readouterr().err
  status, message = heart.ends[0]
  assert status == recover.HUNG
  assert 'lost process 1 on slow-host: step 0, step. The error is Gloo all-reduce fail' in message


def test_process_that_has_ended_is_not_lost(heart):
  heart._count, heart._patience = 2, None
  other(heart, phase='ended')
  for _ in range(heartbeat.MISSED + 9):
    heart.watch()
  assert not heart.ends


def test_heartbeat_ends_with_its_context(tmp_path):
  clock = Goodput(tmp_path)
  with Heartbeat(tmp_path, clock, None):
    clock.step = 2
    assert json.loads((tmp_path / 'heartbeats' / '0.json').read_text())['phase'] == 'setup'
  beat = json.loads((tmp_path / 'heartbeats' / '0.json').read_text())
  assert (beat['step'], beat['phase'], beat['process']) == (2, 'ended', 0)


def test_process_in_a_step_waits_for_one_without_data(heart):
  heart._count = 2
  other(heart, phase='data')
  for _ in range(5):
    heart.watch()
  assert 'Late: process 1 on slow-host: step 0, data.' in heart.ends[0][1]


def test_barrier_in_vain_names_the_late_process(heart, monkeypatch):
  from jax._src import distributed

  class Client:
    def wait_at_barrier(self, name, timeout):
      assert (name, timeout) == ('tfm 1: save of step 6', 20_000)
      assert heart.beat().barrier == 'save of step 6'
      raise jax.errors.JaxRuntimeError('DEADLINE_EXCEEDED: Barrier timed out.\nMore')

  monkeypatch.setattr(distributed.global_state, 'client', Client())
  heart.barrier('nobody else')
  heart._count = 2
  other(heart, step=-1)
  with pytest.raises(
    recover.Stopped,
    match=r"^barrier 'save of step 6': DEADLINE_EXCEEDED: Barrier timed out. Late: process 1 on",
  ) as e:
    heart.barrier('save of step 6')
  assert e.value.status == recover.HUNG


@pytest.mark.large
def test_killed_process_of_two_is_named(tmp_path):
  fields = {'steps': 400, 'end': [1, 5], 'record__sample': 'none', 'save_every': 400}
  status, output = program(tmp_path, tmp_path / 'w', processes=2, **fields)
  assert status != 0, output
  assert re.search(r'tfm train: process 0 on .*: lost process 1 on .* The error is ', output)


@pytest.mark.large
def test_hung_process_of_two_is_named(tmp_path):
  fields = {'steps': 400, 'hang': [1, 5], 'recover__patience': 10, 'record__sample': 'none'}
  status, output = program(tmp_path, tmp_path / 'w', processes=2, **fields)
  assert status == recover.HUNG, output
  assert re.search(r'no progress for 10 s .* Late: process 1 on .*, data', output)
  assert ' in batch' in (tmp_path / 'w' / 'heartbeats' / '1.stacks.txt').read_text()
