"""Where the wall time of a run goes, and how long its start takes."""

import json
import os
import re
import time

import jax
import jax.numpy as jnp
import pytest

from tests.train.tiny import experiment
from tfm.train import compile_cache, goodput, loop, report


def line(run, time, at, done=False, **seconds):
  seconds = dict.fromkeys(goodput.PHASES, 0.0) | seconds
  return {'run': run, 'time': time, 'step': at, 'done': done, 'seconds': seconds}


#: A run that is killed 5 s after step 10, of which steps 7 to 10 are lost, and its restart.
KILLED = [
  line(100.0, 102.0, 0, setup=2.0),
  line(100.0, 112.0, 6, setup=2.0, compile=4.0, step=6.0),
  line(100.0, 116.0, 10, setup=2.0, compile=4.0, step=10.0),
  line(121.0, 122.0, 6, setup=1.0),
  line(121.0, 126.0, 10, setup=1.0, step=3.5, data=0.5, done=True),
]


def test_repeated_steps_and_time_between_runs_are_lost():
  first, second = goodput.runs(KILLED)
  assert first['step'] == 6
  assert first['repeated'] == 4
  assert first['down'] == 0
  assert second['step'] == 3.5
  assert second['repeated'] == 0
  assert second['down'] == 5
  shares = goodput.summary(KILLED)
  assert shares['step'] == pytest.approx(9.5 / 26)
  assert sum(shares.values()) == pytest.approx(1)


def test_steps_between_two_lines_are_lost_in_part():
  rows = [line(0.0, 1.0, 0), line(0.0, 9.0, 8, step=8.0), line(20.0, 21.0, 6), line(20.0, 22.0, 6)]
  assert goodput.runs(rows)[0]['step'] == 6
  again = [*rows, line(30.0, 31.0, 2)]
  assert goodput.runs(again)[0]['step'] == 2, 'a second restart repeats earlier steps too'
  assert goodput.runs(again)[0]['repeated'] == 6


def test_steps_before_a_rewind_are_lost():
  rows = [line(0.0, 0.0, 4), line(0.0, 8.0, 8, step=4.0), line(0.0, 9.0, 4, step=4.0)]
  assert goodput.runs(rows)[0]['repeated'] == 4


def test_time_after_a_complete_run_is_not_lost():
  rows = [line(0.0, 1.0, 2, done=True, step=1.0), line(900.0, 901.0, 2, setup=1.0)]
  assert goodput.runs(rows)[1]['down'] == 0


def test_phases_add_up_to_the_wall_time(tmp_path):
  start = time.perf_counter()
  clock = goodput.Goodput(tmp_path)
  with clock.within('eval'):
    time.sleep(0.02)
    with clock.within('save'):
      time.sleep(0.01)
  assert list(clock.waits(iter('ab'))) == ['a', 'b']
  clock.enter('step')
  assert sum(clock.seconds.values()) == pytest.approx(time.perf_counter() - start, abs=0.1)
  assert clock.seconds['eval'] >= 0.02
  assert clock.seconds['save'] >= 0.01
  clock.write()
  clock.write(now=False)
  with open(clock.path, 'a') as file:
    file.write('{"run"')
  assert len(goodput.read(tmp_path)) == 1


def test_goodput_is_printed_and_drawn(tmp_path, capsys):
  loop.train(experiment(tmp_path, steps=4), tmp_path / 'w', devices=jax.devices()[:1])
  output = capsys.readouterr().out
  assert re.search(
    r'goodput \d+.\d% of \d+ s in 1 run: compile .*%, data .*%, save .*%, eval .*%, setup .*%, '
    r'repeated 0.0%, down 0.0%. Input wait: \d+.\d\d% of step time',
    output,
  )
  assert re.search(
    r'started: setup \d+.\d s, trace \d+.\d s, (compile|read from the cache) \d+.\d s, '
    r'first step \d+.\d s',
    output,
  )
  assert (tmp_path / 'w' / 'goodput.png').read_bytes().startswith(b'\x89PNG')
  rows = goodput.read(tmp_path / 'w')
  assert [row['step'] for row in rows] == [0, 2, 4, 4, 4]
  assert [row['done'] for row in rows] == [False, False, False, True, True]


def test_goodput_needs_a_line(tmp_path):
  assert goodput.text([]) == ''
  assert report.draw_goodput(tmp_path, []) is None


@pytest.fixture
def no_cache(monkeypatch):
  was = jax.config.jax_compilation_cache_dir, jax.config.jax_persistent_cache_min_compile_time_secs
  jax.config.update('jax_compilation_cache_dir', None)
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
  yield
  jax.config.update('jax_compilation_cache_dir', was[0])
  jax.config.update('jax_persistent_cache_min_compile_time_secs', was[1])


def test_programs_are_compiled_once_and_read_later(tmp_path, no_cache):
  from jax.experimental.compilation_cache import compilation_cache

  compilation_cache.reset_cache()
  path = compile_cache.enable(tmp_path)
  assert path.parent == tmp_path
  assert path.name.startswith(f'jax-{jax.__version__}-')
  assert compile_cache.enable(tmp_path / 'other') is None, 'a folder that is set is kept'
  fn = lambda x: jnp.sin(x) * 3
  jitted = jax.jit(fn)
  first = compile_cache.compiled(jitted, jnp.ones(3))
  assert not first.cached
  assert str(first).startswith('trace ')
  programs = list(path.glob('*-cache'))
  assert programs
  with jax.log_compiles(False):
    compiles = []
    jax.monitoring.register_event_duration_secs_listener(
      lambda name, *_, **__: compiles.append(name)
    )
    jitted(jnp.ones(3))
  assert not [name for name in compiles if 'backend_compile' in name], 'the call compiles again'
  jax.clear_caches()
  again = compile_cache.compiled(jax.jit(fn), jnp.ones(3))
  assert again.cached
  assert 'read from the cache' in str(again)
  compilation_cache.reset_cache()


def test_unreadable_and_old_programs_are_compiled_again(tmp_path, no_cache):
  from jax.experimental.compilation_cache import compilation_cache

  compilation_cache.reset_cache()
  path = compile_cache.enable(tmp_path)
  fn = lambda x: jnp.cos(x) * 5
  compile_cache.compiled(jax.jit(fn), jnp.ones(3))
  for file in path.glob('*-cache'):
    file.write_bytes(file.read_bytes()[:50])
  (old := path / 'old-cache').write_bytes(b'')
  os.utime(old, (0, 0))
  jax.clear_caches()
  jax.config.update('jax_compilation_cache_dir', None)
  compile_cache.enable(tmp_path)
  assert not old.exists()
  with pytest.warns(UserWarning, match='Error reading persistent compilation cache entry'):
    assert not compile_cache.compiled(jax.jit(fn), jnp.ones(3)).cached
  compilation_cache.reset_cache()


def test_folder_that_is_not_writable_disables_the_cache(tmp_path, no_cache):
  (tmp_path / 'file').write_text('')
  assert compile_cache.enable(tmp_path / 'file') is None
  assert jax.config.jax_compilation_cache_dir is None


def test_lines_hold_each_phase(tmp_path):
  clock = goodput.Goodput(tmp_path)
  clock.write()
  (row,) = map(json.loads, clock.path.read_text().splitlines())
  assert set(row['seconds']) == set(goodput.PHASES)
