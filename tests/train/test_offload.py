import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm.core.errors import UserError
from tfm.optim import AdamW
from tfm.train import offload
from tfm.train.build import build
from tfm.train.experiment import Experiment


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
