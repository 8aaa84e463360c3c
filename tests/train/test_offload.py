import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.train.tiny import experiment
from tfm.core.errors import UserError
from tfm.optim import AdamW
from tfm.train import offload, shard
from tfm.train import step as step_lib
from tfm.train.build import build
from tfm.train.checkpoint import read_state
from tfm.train.experiment import Experiment
from tfm.train.saver import Checkpoints


@pytest.mark.parametrize(
  ('fields', 'stored'),
  [
    ({'remat': 'residual@host'}, 'remat=residual@host'),
    ({'optim': AdamW(memory='host')}, 'optim.memory=host'),
  ],
)
def test_memory_of_the_host_is_refused_on_cpus(fields, stored):
  with pytest.raises(UserError, match=f'{stored}: the devices are CPUs'):
    build(Experiment(**fields))


def test_optimizer_arrays_are_placed_on_the_host_and_fetched():
  mesh = jax.make_mesh((8,), ('fsdp',))
  opt = {'m': jnp.arange(8.0), 'count': jnp.zeros(())}
  where = jax.tree.map(lambda x: jax.NamedSharding(mesh, jax.P('fsdp') if x.ndim else jax.P()), opt)
  on_host = offload.on_host(where, opt)
  assert on_host['m'].memory_kind == 'pinned_host'
  assert on_host['count'].memory_kind == where['count'].memory_kind
  step = offload.fetching(lambda state, batch: ({'opt': state['opt']}, batch), where)
  state = {'opt': jax.device_put(opt, on_host)}
  new, _ = jax.jit(step, out_shardings=({'opt': on_host}, None))(state, 1)
  assert new['opt']['m'].sharding.memory_kind == 'pinned_host'
  np.testing.assert_array_equal(new['opt']['m'], opt['m'])


def test_state_on_the_host_is_saved_and_resumed(tmp_path, monkeypatch):
  # CPUs have the host's memory kind, so only the check keeps them from the whole path.
  monkeypatch.setattr(offload, 'check', lambda x, devices: None)
  x = experiment(tmp_path, optim__memory='host', mesh__data=4, mesh__fsdp=2)
  built = build(x, jax.devices())
  state = built.init(step_lib.init_key(0))
  checkpoints = Checkpoints(tmp_path, 1)
  checkpoints.save(2, state, x, None)
  checkpoints.close()
  found = read_state(checkpoints.path / '2', built.like())
  jax.tree.map(np.testing.assert_array_equal, found, state)
  kinds = lambda tree: jax.tree.map(lambda x: (x.sharding.memory_kind, x.sharding.spec), tree)
  assert kinds(found) == kinds(state)
  assert found['opt']['rule'].mu['embed']['table'].sharding.memory_kind == 'pinned_host'
  assert found['params']['embed']['table'].sharding.memory_kind == 'device'
  features = {name: np.ones(s.shape, s.dtype) for name, s in built.batch.shapes.items()}
  batch = shard.put(features, built.batch.shardings, 8, slice(0, 8))
  continued, expected = (built.step(start, batch)[0] for start in (found, state))
  jax.tree.map(np.testing.assert_array_equal, continued, expected)
  assert kinds(continued) == kinds(expected)
