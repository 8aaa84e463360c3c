import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.train.tiny import experiment
from tfm.core import config
from tfm.core.errors import ConfigError, UserError
from tfm.model import transformer
from tfm.train import shard
from tfm.train import step as step_lib
from tfm.train.mesh import RULES, Mesh


def steps(x, mesh, devices, n=2):
  """Losses of `n` steps, the state, and how often the step was compiled."""
  tx = x.optim.make(x.steps, transformer.param_letters(x.model))
  grid, rules = shard.make_mesh(mesh, devices), mesh.table()
  where, rules, notes = shard.shardings(grid, rules, step_lib.letters(x, tx), step_lib.shapes(x, tx))
  rows = shard.rows(grid, rules)
  state = jax.jit(step_lib.make_init(x, tx), out_shardings=where)(step_lib.init_key(0))
  fn = jax.jit(
    shard.within(grid, rules, step_lib.make_step(x, tx)),
    donate_argnums=0,
    in_shardings=(where, rows),
    out_shardings=(where, None),
  )
  tok = np.random.default_rng(0).integers(0, 256, (8, 17)).astype(np.int32)
  weights = (np.arange(8 * 16).reshape(8, 16) % 5 > 0).astype(np.float32)
  batch = shard.put({'input_ids': tok[:, :-1], 'labels': tok[:, 1:], 'weights': weights}, rows, 8, slice(0, 8))
  losses = []
  with jax.transfer_guard('disallow'):
    for _ in range(n):
      state, metrics = fn(state, batch)
      losses.append(metrics['loss'])
  return [float(v) for v in losses], state, fn._cache_size(), notes


@pytest.fixture(scope='module')
def x(tmp_path_factory):
  return experiment(tmp_path_factory.mktemp('shard'))


@pytest.fixture(scope='module')
def single(x):
  losses, state, compiled, _ = steps(x, Mesh(), jax.devices()[:1])
  assert compiled == 1
  return losses, sum(shard.bytes_per_device(state).values())


@pytest.mark.parametrize(
  ('mesh', 'least'), [((8, 1, 1), 1), ((1, 8, 1), 7.5), ((2, 2, 2), 3.5), ((2, 1, 4), 3)], ids=str
)
@pytest.mark.large(when=lambda mesh: mesh == (8, 1, 1))
def test_every_mesh_gives_the_losses_of_one_device_and_splits_the_state(x, single, mesh, least):
  losses, state, compiled, _ = steps(x, Mesh(*mesh), jax.devices())
  np.testing.assert_allclose(losses, single[0], atol=1e-5)
  assert compiled == 1
  assert max(shard.bytes_per_device(state).values()) <= single[1] / least


def compiled_flops(x, mesh, devices):
  """FLOPs of a step on each device."""
  tx = x.optim.make(x.steps, transformer.param_letters(x.model))
  grid, rules = shard.make_mesh(mesh, devices), mesh.table()
  shapes = step_lib.shapes(x, tx)
  where, rules, _ = shard.shardings(grid, rules, step_lib.letters(x, tx), shapes)
  rows = shard.rows(grid, rules)
  batch = {k: jax.ShapeDtypeStruct((8, 16), d) for k, d in [('input_ids', 'i4'), ('labels', 'i4'), ('weights', 'f4')]}
  fn = jax.jit(shard.within(grid, rules, step_lib.make_step(x, tx)), in_shardings=(where, rows))
  return fn.lower(shapes, batch).compile().cost_analysis()['flops']


# With data=8 every device updates all of the parameters, which is a part of so small a step.
@pytest.mark.parametrize(('mesh', 'most'), [((8, 1, 1), 0.18), ((1, 8, 1), 0.14), ((4, 2, 1), 0.16)], ids=str)
def test_devices_share_the_work_and_not_only_the_state(x, mesh, most):
  wide = config.override(config.override(x, 'model.d_model', '64'), '..d_ff', '256')
  share = compiled_flops(wide, Mesh(*mesh), jax.devices()) / compiled_flops(wide, Mesh(), jax.devices()[:1])
  assert 1 / 8 <= share < most


def test_micro_batches_give_the_losses_of_the_whole_batch(x, single):
  block = dataclasses.replace(x.model.segments[0].pattern[0], dropout=0.0)
  segments = (dataclasses.replace(x.model.segments[0], pattern=(block,)),)
  plain = dataclasses.replace(x, model=dataclasses.replace(x.model, segments=segments))
  whole = steps(plain, Mesh(), jax.devices()[:1])[0]
  split = dataclasses.replace(plain, optim=dataclasses.replace(plain.optim, accumulate=4))
  np.testing.assert_allclose(steps(split, Mesh(), jax.devices()[:1])[0], whole, rtol=1e-5)


def placed(letters, shape, mesh=Mesh(1, 2, 4)):
  grid = shard.make_mesh(mesh, jax.devices())
  return shard.shardings(
    grid, mesh.table(), letters, jax.tree.map(lambda s: jnp.zeros(s), shape, is_leaf=lambda s: isinstance(s, tuple))
  )


def test_no_array_uses_a_mesh_axis_twice():
  where, _, _ = placed({'w': 'DD'}, {'w': (4, 4)})
  assert where['w'].spec == jax.P(('fsdp',))


def test_kv_heads_and_vocabularies_that_do_not_divide_stay_whole_with_a_note():
  where, _, notes = placed({'k': 'DKH', 'e': 'VD'}, {'k': (4, 2, 8), 'e': (50257, 4)})
  assert where['k'].spec == jax.P(('fsdp',))
  assert where['e'].spec == jax.P(None, ('fsdp',))
  assert notes == [
    'V (vocab) of 50257 is not divided by tensor=4: it stays whole on every device.',
    'K (kv heads) of 2 is not divided by tensor=4: it stays whole on every device.',
  ]


def test_axes_that_do_not_divide_are_listed_together():
  with pytest.raises(
    UserError,
    match=r'^mesh: D \(model\) of 15 is not divided by fsdp=2; it would be by 1 or 3. N \(query heads\) of 6 .* by 3',
  ):
    placed({'q': 'DNH', 'f': 'FD'}, {'q': (15, 6, 8), 'f': (8, 15)})


def test_a_mesh_that_does_not_match_the_devices_is_an_error():
  with pytest.raises(UserError, match=r'^mesh: data=3, fsdp=1, tensor=1 is for 3 devices, and there are 8. Wanted'):
    Mesh(3).sizes(8)
  with pytest.raises(UserError, match=r'is for 3 times a whole number of devices, and there are 8. Wanted a divis'):
    Mesh(fsdp=3).sizes(8)
  assert Mesh(fsdp=2).sizes(8) == (4, 2, 1)


def test_a_batch_the_devices_cannot_share_is_an_error():
  grid = shard.make_mesh(Mesh(), jax.devices())
  with pytest.raises(
    UserError,
    match=r'^data.batch: 12 rows are not divided by the 8 devices .* Wanted a multiple of 8, such as 8 or 16.',
  ):
    shard.check_batch(grid, RULES, 12, 1)


def test_a_run_can_change_the_rules():
  where, _, _ = placed({'w': 'EFD'}, {'w': (4, 8, 4)}, Mesh(1, 2, 4, rules=('E:tensor', 'D:')))
  assert where['w'].spec == jax.P(('tensor',))
  assert list(Mesh(rules=('E:tenor', 'e:data', 'V')).check()) == [
    "rules: unknown mesh axis 'tenor'. Did you mean 'tensor'? Known: data, fsdp, tensor.",
    "rules: 'e:data' is no rule. Wanted LETTER:AXES, as E:tensor or B:data+fsdp or V: (whole).",
    "rules: 'V' is no rule. Wanted LETTER:AXES, as E:tensor or B:data+fsdp or V: (whole).",
  ]


def test_a_config_that_does_not_fit_together_is_told_at_once(tmp_path):
  x = experiment(tmp_path, steps=0, remat='some', mesh__data=3, model__absolute='learned', data__length=2000)
  with pytest.raises(ConfigError) as e:
    config.validate(x)
  text = str(e.value)
  assert 'steps: is 0. Wanted 1 or more.' in text
  assert "remat: is 'some'. Known: none, full, dots, dots_batch." in text
  assert 'data.length: rows of 2000 tokens are longer than the 1024 rows of the position table.' in text
  assert 'data.batch: 8 rows are not divided by mesh.data=3 = 3. Wanted a multiple of it, such as 6 or 9.' in text
