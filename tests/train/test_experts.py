"""Expert parallelism, and the update of router biases."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.train.test_shard import steps
from tests.train.tiny import experiment
from tfm.model import transformer
from tfm.model.spec import Block, Segment
from tfm.parts.ffn import Glu, Mlp, Moe
from tfm.parts.mixer import Attention
from tfm.parts.router import Grouped
from tfm.train import shard
from tfm.train import step as step_lib
from tfm.train.mesh import Mesh


def with_ffn(folder, ffn, repeats=2):
  x = experiment(folder)
  block = Block(Attention(4, 2), ffn)
  return dataclasses.replace(
    x, model=dataclasses.replace(x.model, segments=(Segment((block,), repeats),))
  )


@pytest.fixture(scope='module')
def x(tmp_path_factory):
  return with_ffn(tmp_path_factory.mktemp('experts'), Moe(8, Grouped(), Glu(32), Mlp(16)))


@pytest.fixture(scope='module')
def single(x):
  losses, state, _, _ = steps(x, Mesh(), jax.devices()[:1])
  return losses, state['params'], sum(shard.bytes_per_device(state).values())


@pytest.mark.parametrize(
  ('mesh', 'rules', 'least'),
  [
    ((8, 1, 1), (), 1),
    ((2, 2, 2), (), 3.5),
    ((1, 8, 1), ('E:fsdp',), 5),
    ((4, 1, 2), ('E:data+tensor',), 2.5),
    ((1, 2, 4), ('E:',), 7),
    ((1, 1, 2, 1, 4), (), 3),
  ],
  ids=str,
)
@pytest.mark.large(when=lambda mesh: mesh not in ((4, 1, 2), (1, 1, 2, 1, 4)))
def test_every_mesh_matches_one_device_and_shards_the_experts(x, single, mesh, rules, least):
  losses, state, compiled, _ = steps(x, Mesh(*mesh, rules=rules), jax.devices())
  np.testing.assert_allclose(losses, single[0], atol=1e-5)
  assert compiled == 1
  for (path, a), b in zip(
    jax.tree_util.tree_leaves_with_path(state['params']), jax.tree.leaves(single[1]), strict=True
  ):
    np.testing.assert_allclose(a, b, atol=2e-4, err_msg=jax.tree_util.keystr(path))
  assert max(shard.bytes_per_device(state).values()) <= single[2] / least


@pytest.mark.parametrize('pieces', [1, 2])
@pytest.mark.large(when=lambda pieces: pieces == 1)
def test_router_bias_moves_by_its_rate_against_the_global_load(x, pieces):
  optim = dataclasses.replace(x.optim, accumulate=pieces, decay=0.5, no_decay=())
  x = dataclasses.replace(x, optim=optim)
  tx = x.optim.make(x.steps, transformer.param_letters(x.model))
  state = step_lib.make_init(x, tx)(jax.random.key(0))
  tok = np.random.default_rng(0).integers(0, 256, (4, 9)).astype(np.int32)
  batch = {'input_ids': tok[:, :-1], 'labels': tok[:, 1:], 'weights': np.ones((4, 8), np.float32)}
  load_LE = transformer.apply(x.model, state['params'], input_ids=tok[:, :-1])['load']['segment_0'][
    'block_0'
  ]['ffn']
  load_LE = np.asarray(load_LE['router']['bias'])
  assert (load_LE.sum(1) == 4 * 8 * 2).all()
  assert load_LE.std() > 0
  after, _ = jax.jit(step_lib.make_step(x, tx))(state, jax.tree.map(jnp.asarray, batch))
  bias_LE = after['params']['segment_0']['block_0']['ffn']['router']['bias']
  np.testing.assert_array_equal(
    bias_LE, np.float32(0.001) * np.sign(load_LE.mean(1, keepdims=True) - load_LE)
  )
