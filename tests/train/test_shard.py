import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.train.tiny import experiment
from tfm.core import config
from tfm.core.errors import ConfigError, UserError
from tfm.train import shard
from tfm.train import step as step_lib
from tfm.train.build import build
from tfm.train.mesh import RULES, Mesh


def steps(x, mesh, devices, n=2):
  """Run some steps.

  Returns:
    The losses, the state, the number of compilations, and the notes of the shardings.
  """
  built = build(dataclasses.replace(x, mesh=mesh), devices)
  state = built.init(step_lib.init_key(0))
  tok = np.random.default_rng(0).integers(0, 256, (8, 17)).astype(np.int32)
  weights = (np.arange(8 * 16).reshape(8, 16) % 5 > 0).astype(np.float32)
  features = {'input_ids': tok[:, :-1], 'labels': tok[:, 1:], 'weights': weights}
  batch = shard.put(features, built.batch.shardings, 8, slice(0, 8))
  losses = []
  with jax.transfer_guard('disallow'):
    for _ in range(n):
      state, metrics = built.step(state, batch)
      losses.append(metrics['loss'])
  return [float(v) for v in losses], state, built.step._cache_size(), built.notes


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
def test_every_mesh_matches_one_device_and_shards_the_state(x, single, mesh, least):
  losses, state, compiled, _ = steps(x, Mesh(*mesh), jax.devices())
  np.testing.assert_allclose(losses, single[0], atol=1e-5)
  assert compiled == 1
  assert max(shard.bytes_per_device(state).values()) <= single[1] / least


def test_batches_are_sharded_by_any_letter(x, single):
  mesh = Mesh(data=2, sequence=4)
  built = build(dataclasses.replace(x, mesh=mesh), jax.devices())
  assert built.batch.shardings['input_ids'].spec == jax.P(('data',), ('sequence',))
  np.testing.assert_allclose(steps(x, mesh, jax.devices())[0], single[0], atol=1e-5)


def test_step_is_lowered_without_data(x):
  absent = dataclasses.replace(x.data, files='nowhere/*.txt', cache='nowhere')
  built = build(dataclasses.replace(x, data=absent, mesh=Mesh(2, 2, 2)), jax.devices())
  lowered = built.step.lower(built.shapes, built.batch.shapes)
  assert '@main' in lowered.as_text()
  assert lowered.out_info[0]['step'].shape == ()


def compiled_flops(x, mesh, devices):
  """FLOPs of a step on each device."""
  built = build(dataclasses.replace(x, mesh=mesh), devices)
  return built.step.lower(built.shapes, built.batch.shapes).compile().cost_analysis()['flops']


# With data=8 every device updates all parameters, a noticeable part of such a small step.
@pytest.mark.parametrize(
  ('mesh', 'most'), [((8, 1, 1), 0.2), ((1, 8, 1), 0.14), ((4, 2, 1), 0.16)], ids=str
)
def test_devices_share_the_computation(x, mesh, most):
  wide = config.override(config.override(x, 'model.d_model', '64'), '..d_ff', '256')
  share = compiled_flops(wide, Mesh(*mesh), jax.devices()) / compiled_flops(
    wide, Mesh(), jax.devices()[:1]
  )
  assert 1 / 8 <= share < most


def test_micro_batches_match_the_whole_batch(x, single):
  block = dataclasses.replace(x.model.segments[0].pattern[0], dropout=0.0)
  segments = (dataclasses.replace(x.model.segments[0], pattern=(block,)),)
  plain = dataclasses.replace(x, model=dataclasses.replace(x.model, segments=segments))
  whole = steps(plain, Mesh(), jax.devices()[:1])[0]
  split = dataclasses.replace(plain, optim=dataclasses.replace(plain.optim, accumulate=4))
  np.testing.assert_allclose(steps(split, Mesh(), jax.devices()[:1])[0], whole, rtol=1e-5)


def placed(letters, shape, mesh=Mesh(1, 2, 4)):
  grid = shard.make_mesh(mesh, jax.devices())
  return shard.shardings(
    grid,
    mesh.table(),
    letters,
    jax.tree.map(lambda s: jnp.zeros(s), shape, is_leaf=lambda s: isinstance(s, tuple)),
  )


def test_no_array_uses_a_mesh_axis_twice():
  where, _, _ = placed({'w': 'DD'}, {'w': (4, 4)})
  assert where['w'].spec == jax.P(('fsdp',))


def test_indivisible_kv_heads_and_vocabularies_are_replicated():
  where, _, notes = placed({'k': 'DKH', 'e': 'VD'}, {'k': (4, 2, 8), 'e': (50257, 4)})
  assert where['k'].spec == jax.P(('fsdp',))
  assert where['e'].spec == jax.P(None, ('fsdp',))
  assert notes == [
    'V (vocab) of 50257 is not divisible by tensor=4: it is replicated on every device.',
    'K (kv heads) of 2 is not divisible by tensor=4: it is replicated on every device.',
  ]


def test_indivisible_axes_are_listed_together():
  with pytest.raises(
    UserError,
    match=r'^mesh: D \(model\) of 15 is not divisible by fsdp=2; it is divisible by 1 or 3. '
    r'N \(query heads\) of 6 .* by 3',
  ):
    placed({'q': 'DNH', 'f': 'FD'}, {'q': (15, 6, 8), 'f': (8, 15)})


def test_mesh_that_does_not_match_the_devices_is_an_error():
  with pytest.raises(
    UserError, match=r'^mesh: data=3 needs 3 devices, but there are 8. Expected sizes with the prod'
  ):
    Mesh(3).sizes(8)
  with pytest.raises(
    UserError, match=r'^mesh: fsdp=3 needs a multiple of 3 devices, but there are 8. Expected a div'
  ):
    Mesh(fsdp=3).sizes(8)
  assert list(Mesh(fsdp=2).sizes(8).values()) == [4, 2, 1, 1, 1, 1]


def test_mesh_axis_without_a_rule_is_an_error():
  assert list(Mesh(sequence=2, stage=-1, data=1, rules=('T:', 'L:')).check()) == [
    'sequence: is 2, but no rule shards an axis over sequence. Expected 1, or a rule in '
    'mesh.rules.',
    'stage: is -1, but no rule shards an axis over stage. Expected 1, or a rule in mesh.rules.',
  ]
  assert not list(Mesh(sequence=2, expert=2, stage=2).check())
  assert list(Mesh(microbatches=0, rounds=0).check()) == [
    'microbatches: is 0. Expected 1 or more, or none.',
    'rounds: is 0. Expected 1 or more.',
  ]


def test_indivisible_batch_is_an_error():
  grid = shard.make_mesh(Mesh(), jax.devices())
  with pytest.raises(
    UserError,
    match=r'^data.batch: 12 is not divisible by the 8 devices .* Expected a multiple of 8, such as '
    r'8 or 16.',
  ):
    shard.check_batch(grid, RULES, 12, 1)


def test_mesh_rules_can_be_changed():
  where, _, _ = placed({'w': 'EFD'}, {'w': (4, 8, 4)}, Mesh(1, 2, 4, rules=('E:tensor', 'D:')))
  assert where['w'].spec == jax.P(('tensor',))
  assert list(Mesh(rules=('E:tenor', 'e:data', 'V')).check()) == [
    "rules: unknown mesh axis 'tenor'. Did you mean 'tensor'? Known: data, expert, fsdp, sequence, "
    'stage, tensor.',
    "rules: 'e:data' is not a rule. Expected LETTER:AXES, such as E:tensor, B:data+fsdp or V: "
    '(replicated).',
    "rules: 'V' is not a rule. Expected LETTER:AXES, such as E:tensor, B:data+fsdp or V: "
    '(replicated).',
  ]


def test_all_inconsistent_fields_are_reported_together(tmp_path):
  x = experiment(
    tmp_path, steps=0, remat='some', mesh__data=3, model__absolute='learned', data__length=2000
  )
  with pytest.raises(ConfigError) as e:
    config.validate(x)
  text = str(e.value)
  assert 'steps: is 0. Expected 1 or more.' in text
  assert "remat: is 'some'. Expected none, full, dots, dots_batch, or activations" in text
  assert 'data.length: sequences of 2000 tokens exceed the position table of 1024 rows.' in text
  assert (
    'data.batch: 8 is not divisible by mesh.data=3. Expected a multiple of 3, such as 6 or 9.'
    in text
  )
