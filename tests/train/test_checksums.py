"""Damaged files of checkpoints are noticed and named; passing errors cost no checkpoint."""

import errno
import gc
import random
import re
import resource
import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from tests.train.tiny import experiment
from tfm.core.errors import UserError
from tfm.train import checkpoint, checksums, recover, resume, retry
from tfm.train import step as step_lib
from tfm.train.build import build
from tfm.train.saver import Checkpoints

ONE = jax.devices()[:1]
EIO = OSError(errno.EIO, 'Input/output error')


# Orbax leaves unawaited reads of a broken checkpoint.
pytestmark = pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')


@pytest.fixture(autouse=True)
def _no_pauses_or_leftovers(monkeypatch):
  monkeypatch.setattr(retry, 'PAUSES', (0.0, 0.0))
  yield
  gc.collect()


class Run:
  """A run with checkpoints of steps 2 and 4, without training."""

  def __init__(self, folder):
    self.x = experiment(folder)
    self.built = build(self.x, ONE)
    self.state = self.built.init(step_lib.init_key(0))
    self.vocabulary = self.x.data.open(self.x.task).vocabulary
    self.folder = folder / 'w'
    self.folder.mkdir()
    for step in (2, 4):
      self.save(Checkpoints(self.folder, 9), step)

  def save(self, checkpoints, step):
    checkpoints.save(step, self.state, self.x, self.vocabulary)
    checkpoints.wait()

  def copy(self, to):
    shutil.copytree(self.folder, to)
    return to

  def resume(self, workdir, x=None):
    """Return the step that a run continues from, and the notes."""
    notes = []
    found = resume.resume(
      Checkpoints(workdir, 9), x or self.x, self.built.like(), self.vocabulary, notes.append
    )
    return found, '\n'.join(notes)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  return Run(tmp_path_factory.mktemp('checksums'))


@pytest.fixture
def workdir(run, tmp_path):
  return run.copy(tmp_path / 'w')


def same(a, b):
  return all(jax.tree.leaves(jax.tree.map(lambda x, y: bool(np.array_equal(x, y)), a, b)))


def flip(path, place, bit=0):
  content = bytearray(path.read_bytes())
  content[place] ^= 1 << bit
  path.write_bytes(content)


def error_of(call):
  try:
    call()
  except Exception as error:
    return error
  return None


def largest(folder):
  return max((p for p in folder.rglob('*') if p.is_file()), key=lambda p: p.stat().st_size)


def failing(monkeypatch, error, times, only=''):
  """Makes reads of arrays fail that many times, in checkpoints of step `only`."""
  was, left = resume.read_state, [times]

  def read_state(folder, like):
    if left[0] and folder.name.startswith(only):
      left[0] -= 1
      raise error
    return was(folder, like)

  monkeypatch.setattr(resume, 'read_state', read_state)


def test_each_flipped_byte_is_named_or_changes_no_number(run, tmp_path):
  good, draw = run.folder / 'checkpoints' / '4', random.Random(0)
  files = sorted(p.relative_to(good) for p in good.rglob('*') if p.is_file())
  expected, noticed, bad = checkpoint.about(good)[0], 0, tmp_path / '4'

  def read(folder):
    checkpoint.about(folder)
    return checkpoint.read_state(folder, run.built.like())

  for turn in range(40):
    # Every second flip is within the arrays.
    name = files[turn // 2 % len(files)] if turn % 2 else largest(good).relative_to(good)
    shutil.copytree(good, bad)
    flip(bad / name, draw.randrange((bad / name).stat().st_size), draw.randrange(8))
    error = error_of(lambda: read(bad))
    if error is None:
      assert checkpoint.about(bad)[0] == expected, name
      assert same(read(bad), run.state), name
    else:
      assert str(bad) in checksums.damage(error), (name, error)
      noticed += 1
    shutil.rmtree(bad)
  assert noticed > 25


@pytest.mark.parametrize(
  ('shape', 'chunk'),
  [
    ((), ()),
    ((300,), (300,)),
    ((4096, 4096), (64, 4096)),
    ((32, 4096, 14336), (1, 16, 14336)),
    ((2, 3, 1 << 19), (1, 1, 1 << 18)),
    ((1031, 768), (1, 768)),
    ((0, 8), (0, 8)),
  ],
)
def test_chunks_are_contiguous_and_divide_the_array(shape, chunk):
  assert checksums.chunk_shape(shape, 4) == chunk


def test_damage_names_the_array_and_both_checksums(run, workdir):
  folder = workdir / 'checkpoints' / '4'
  flip(largest(folder), 5000)
  damage = checksums.damage(error_of(lambda: checkpoint.read_state(folder, run.built.like())))
  assert re.fullmatch(
    rf'{folder}/state: array [a-z0-9_.]+ has CRC-32C 0x\w+, expected 0x\w+', damage
  )


def test_damage_names_the_file_and_both_checksums(workdir):
  folder = workdir / 'checkpoints' / '4'
  flip(folder / 'about' / 'experiment.json', 30)
  with pytest.raises(
    checksums.Broken, match=r'experiment.json: has SHA-256 \w{16}, expected \w{16}'
  ):
    checkpoint.about(folder)
  (folder / 'about' / checksums.FILE).write_text('{')
  with pytest.raises(checksums.Broken, match=r'checksums.json: is not JSON'):
    checkpoint.about(folder)


def test_damaged_checkpoint_is_moved_and_the_previous_used(run, workdir, capsys):
  flip(largest(workdir / 'checkpoints' / '4'), 5000)
  found, notes = run.resume(workdir)
  assert same(found, run.state)
  assert notes == f'resumed from {workdir}/checkpoints/2'
  text = capsys.readouterr().out
  assert f'{workdir}/checkpoints/4: is damaged ({workdir}/checkpoints/4/state: array ' in text
  assert f'moved to {workdir}/broken/4, and the checkpoint of step 2 is tried.' in text
  flip(largest(workdir / 'checkpoints' / '2'), 5000)
  assert run.resume(workdir)[0] is None
  assert f'moved to {workdir}/broken/2, and training starts again.' in capsys.readouterr().out


def test_moved_checkpoints_replace_no_other(run, workdir):
  for _ in range(2):
    flip(largest(workdir / 'checkpoints' / '4'), 5000)
    run.resume(workdir)
    run.save(Checkpoints(workdir, 9), 4)
  assert sorted(p.name for p in (workdir / 'broken').iterdir()) == ['4', '4-2']


def test_damage_that_a_second_read_does_not_show_is_ignored(run, workdir, monkeypatch):
  failing(monkeypatch, ValueError('DATA_LOSS: Digest mismatch'), 1)
  assert run.resume(workdir)[1] == f'resumed from {workdir}/checkpoints/4'


@pytest.mark.parametrize(
  'error',
  [EIO, ValueError("UNKNOWN: Error reading p [os_error_code='116']"), ValueError('UNAVAILABLE: p')],
  ids=lambda e: f'error={str(e)[:11]}',
)
def test_passing_error_is_retried(run, workdir, monkeypatch, capsys, error):
  failing(monkeypatch, error, 2)
  assert run.resume(workdir)[1] == f'resumed from {workdir}/checkpoints/4'
  text = capsys.readouterr().out
  assert f'checkpoints/4: {error}'.split(' [os')[0] in text
  assert 'Try 2 of 3 follows in 0 s.' in text
  assert 'Try 3 of 3 follows in 0 s.' in text


@pytest.mark.parametrize(
  'error', [EIO, MemoryError('no memory')], ids=lambda e: f'error={type(e).__name__}'
)
def test_unreadable_checkpoint_stops_the_run_and_stays(run, workdir, monkeypatch, error):
  failing(monkeypatch, error, 9)
  message = (
    r'checkpoints/4: cannot be read \(.*\). It may be intact, so nothing is moved or deleted. .* '
    r'continue from step 2 with --config.record.skip_unreadable=true, which loses steps 3 to 4.'
  )
  with pytest.raises(UserError, match=message):
    run.resume(workdir)
  assert {p.name for p in (workdir / 'checkpoints').iterdir()} == {'2', '4'}


def test_skip_unreadable_continues_from_an_earlier_step(run, workdir, monkeypatch, capsys):
  failing(monkeypatch, EIO, 9, only='4')
  skips = experiment(run.folder.parent, record__skip_unreadable=True)
  found, notes = run.resume(workdir, skips)
  assert same(found, run.state)
  assert f'resumed from {workdir}/checkpoints/2' in notes
  assert f'cannot be read ([Errno 5] {EIO.strerror}). It is moved to' in capsys.readouterr().out
  assert (workdir / 'skipped' / '4' / 'state').is_dir()


def test_load_reports_the_undamaged_checkpoint_it_uses(workdir, monkeypatch, capsys):
  flip(largest(workdir / 'checkpoints' / '4'), 5000)
  for path in (workdir / 'checkpoints' / '4' / 'state').rglob('d/*'):
    path.write_bytes(path.read_bytes()[:100])
  assert checkpoint.load(workdir).step == 2
  text = capsys.readouterr().err
  assert 'step 2 is used, because others are damaged: 4: ' in text

  def fails(*args):
    raise EIO

  monkeypatch.setattr(checkpoint, 'read_state', fails)
  with pytest.raises(UserError, match=r'2: cannot be read \(.*\). Expected readable files, or the'):
    checkpoint.load(workdir / 'checkpoints' / '2')


def test_checkpoint_of_an_earlier_version_is_resumed(run, tmp_path, monkeypatch):
  monkeypatch.setattr(checksums, 'write', lambda folder: None)
  monkeypatch.setattr(
    checksums.StateHandler, '__init__', lambda self: ocp.PyTreeCheckpointHandler.__init__(self)
  )
  run.save(Checkpoints(tmp_path, 9), 2)
  found, notes = run.resume(tmp_path)
  assert same(found, run.state)
  assert notes.endswith('checkpoints/2 (saved by an earlier version, without checksums)')


def test_failed_save_is_replaced_by_the_next(run, workdir, monkeypatch, capsys):
  was, fails = checksums.StateHandler.finalize, [True]

  def finalize(self, directory):
    if fails[0]:
      raise EIO
    was(self, directory)

  monkeypatch.setattr(checksums.StateHandler, 'finalize', finalize)
  checkpoints = Checkpoints(workdir, 9)
  checkpoints.save(6, run.state, run.x, run.vocabulary)
  checkpoints.save(8, run.state, run.x, run.vocabulary)
  assert 'checkpoints/6: was not saved ([Errno 5]' in (text := capsys.readouterr().out)
  assert 'Step 8 is saved instead.' in text
  with pytest.raises(recover.Stopped, match=r'checkpoints/8: was not saved \(.*\). Training stops'):
    checkpoints.save(10, run.state, run.x, run.vocabulary)
  fails[0] = False
  checkpoints.save(10, run.state, run.x, run.vocabulary)
  checkpoints.close()
  assert Checkpoints(workdir, 9).steps == [2, 4, 10]
  assert run.resume(workdir)[1].endswith(f'resumed from {workdir}/checkpoints/10')


def test_last_save_that_fails_stops_with_a_sentence(run, workdir, monkeypatch):
  def fails(*args):
    raise EIO

  monkeypatch.setattr(checksums.StateHandler, 'finalize', fails)
  with pytest.raises(recover.Stopped, match=r'checkpoints/6: was not saved \(.*\). Training stops'):
    run.save(Checkpoints(workdir, 9), 6)


def test_disk_that_fills_during_a_save_keeps_the_previous(run, workdir):
  checkpoints, limit = Checkpoints(workdir, 1), resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limit[1]))
  try:
    error = error_of(lambda: run.save(checkpoints, 6))
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)
  assert recover.is_full(error)
  assert run.resume(workdir)[1].endswith(f'resumed from {workdir}/checkpoints/4')
