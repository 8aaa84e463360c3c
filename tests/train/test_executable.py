import jax
import numpy as np
import pytest

from tests.plan.small import experiment
from tfm.core import errors
from tfm.train import compile_cache, executable
from tfm.train import step as step_lib
from tfm.train.build import build


def fresh(lowered):
  with compile_cache.bypassed():
    return lowered.compile()


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  """Return the experiment, its devices, and the file of its compiled step."""
  folder = tmp_path_factory.mktemp('executable')
  x, devices = experiment(folder, mesh__fsdp=2), jax.devices()[:2]
  built = build(x, devices)
  lowered = built.step.lower(built.shapes, built.batch.shapes)
  executable.save(folder / 'step.bin', x, lowered, fresh(lowered))
  return x, devices, folder / 'step.bin'


def test_loaded_step_gives_the_same_bits(saved):
  x, devices, path = saved
  built = build(x, devices)
  loaded = executable.load(path, x, built)

  def after(step):
    batch = {k: np.ones(a.shape, a.dtype) for k, a in built.batch.shapes.items()}
    return step(built.init(step_lib.init_key(0)), jax.device_put(batch, built.batch.shardings))

  for a, b in zip(jax.tree.leaves(after(loaded)), jax.tree.leaves(after(built.step)), strict=True):
    np.testing.assert_array_equal(a, b)


def test_another_config_is_refused_with_the_difference(saved):
  _, devices, path = saved
  other = experiment(path.parent, mesh__fsdp=2, model__d_model=24)
  with pytest.raises(errors.UserError, match=r'another program:\n  model.d_model'):
    executable.load(path, other, build(other, devices))


def test_other_flags_of_the_compiler_are_refused(saved, monkeypatch):
  x, devices, path = saved
  monkeypatch.setenv('LIBTPU_INIT_ARGS', '--xla_tpu_x=1')
  with pytest.raises(errors.UserError, match="LIBTPU_INIT_ARGS: '', here '--xla_tpu_x=1'"):
    executable.load(path, x, build(x, devices))


def test_changes_that_compile_to_the_same_program_are_fine(saved):
  _, devices, path = saved
  other = experiment(path.parent, mesh__fsdp=2, save_every=5)
  assert executable.load(path, other, build(other, devices)) is not None


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda b: b[:-1] + bytes([b[-1] ^ 1]), 'is damaged'),
    (lambda b: b'something else', 'is no executable of tfm'),
    (lambda b: b[:40], 'is no executable of tfm'),
  ],
  ids=['flip', 'other', 'short'],
)
def test_damaged_files_are_refused(saved, tmp_path, change, message):
  x, devices, path = saved
  broken = tmp_path / 'step.bin'
  broken.write_bytes(change(path.read_bytes()))
  with pytest.raises(errors.UserError, match=message):
    executable.load(broken, x, build(x, devices))


def test_missing_file_is_a_user_error(saved, tmp_path):
  x, devices, _ = saved
  with pytest.raises(errors.UserError, match='Expected a file of tfm plan --save'):
    executable.load(tmp_path / 'none.bin', x, build(x, devices))


def test_training_with_a_saved_step_ends_with_the_same_bits(tmp_path):
  from tfm.train import loop

  x, devices = experiment(tmp_path, steps=3, eval_every=3, save_every=3), jax.devices()[:1]
  built = build(x, devices)
  lowered = built.step.lower(built.shapes, built.batch.shapes)
  executable.save(tmp_path / 'step.bin', x, lowered, fresh(lowered))
  own = loop.train(x, tmp_path / 'own', devices=devices).state
  saved = loop.train(
    x, tmp_path / 'saved', devices=devices, executable_file=tmp_path / 'step.bin'
  ).state
  for a, b in zip(jax.tree.leaves(own), jax.tree.leaves(saved), strict=True):
    np.testing.assert_array_equal(a, b)
