"""Moments in 8 bits: error, size, training, meshes and checkpoints."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.train.tiny import experiment
from tfm.core import config
from tfm.optim import AdamW, Lion
from tfm.optim.letters import state_letters
from tfm.optim.moments import block_size, dequantize, has_blocks, quantize
from tfm.optim.schedule import Constant
from tfm.train import shard
from tfm.train import step as step_lib
from tfm.train.build import build
from tfm.train.checkpoint import read_state
from tfm.train.mesh import Mesh
from tfm.train.saver import Checkpoints

LETTERS = {'w': 'DF', 'out': 'FD', 'b': 'F', 'small': 'DR'}
SIZES = {'D': 64, 'F': 300, 'R': 32}
INT8 = {'m_dtype': 'int8', 'v_dtype': 'int8'}


packed = jax.jit(quantize, static_argnames='signed')


def restored(x, key, signed):
  """Return numbers after a round trip, as a NumPy array."""
  return np.asarray(dequantize(packed(x, key, signed), signed))


def drawn(seed):
  keys = jax.random.split(jax.random.key(seed), len(LETTERS))
  return {
    name: jax.random.normal(key, [SIZES[c] for c in letters]) / 8
    for key, (name, letters) in zip(keys, LETTERS.items(), strict=True)
  }


@pytest.mark.parametrize(
  ('size', 'block'),
  [(64, 64), (256, 256), (768, 96), (1024, 64), (4096, 256), (14336, 224), (151936, 64)],
)
def test_blocks_divide_the_axis_for_many_devices(size, block):
  assert block_size(size) == block


def test_blocks_of_a_prime_axis_are_padded():
  x = jax.random.normal(jax.random.key(0), [2, 1031])
  assert packed(x, jax.random.key(1), signed=True).scales.shape == (2, 5)
  np.testing.assert_allclose(restored(x, jax.random.key(1), True), x, atol=0.1)


@pytest.mark.parametrize('signed', [True, False])
def test_codes_are_unbiased_and_precise_at_every_size(signed):
  exact = np.logspace(-3.5 if signed else -8, 0, 256, dtype=np.float32)
  code = np.floor(127 * exact**0.5 if signed else 255 * exact**0.25)
  if signed:
    exact[::2] *= -1
  found = restored(np.broadcast_to(exact, [2000, 256]), jax.random.key(0), signed)
  np.testing.assert_allclose(found.mean(0), exact, rtol=0.1)
  power = 2 if signed else 4
  step = (1 + 1 / code) ** power - 1  # from a code to the next
  assert (np.abs(found / exact[None] - 1).max(0) <= step * 1.01 + 1e-6).all()


def test_zero_and_invalid_moments_are_kept():
  x = np.zeros([3, 256], np.float32)
  x[1, 7], x[2, 3] = 1e-30, np.nan
  for signed in (True, False):
    found = restored(x, jax.random.key(0), signed)
    np.testing.assert_allclose(found[:2], x[:2], rtol=1e-6)
    assert np.isnan(found[2]).all()


def test_second_moment_is_never_rounded_to_zero():
  x = np.full([1, 256], 1e-12, np.float32)
  x[0, 0] = 1
  assert (restored(x, jax.random.key(0), False) > 0).all()


def test_state_takes_two_bytes_and_small_arrays_are_float32():
  params = drawn(0)
  state = jax.eval_shape(AdamW(**INT8).make(9, LETTERS).init, params)['rule']
  for moment in (state.mu, state.nu):
    assert moment['w'].codes.dtype == jnp.int8
    assert moment['out'].scales.shape == (300, 1)
    assert moment['b'].dtype == moment['small'].dtype == jnp.float32
  large = [state.mu['w'], state.mu['out'], state.nu['w'], state.nu['out']]
  total = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(large))
  assert total / (2 * 64 * 300) < 2.12
  assert not has_blocks('LEF', (9, 9, 300))


@pytest.fixture(scope='module')
def losses():
  """The loss of 200 steps of a small network, by optimizer."""
  x = jax.random.normal(jax.random.key(5), [200, 32, 64])
  teacher = drawn(1)

  def forward(p, x):
    return (jnp.tanh(x @ p['w'] + p['b'][None]) @ p['out']) @ p['small']

  def run(optim):
    tx, params = optim.make(200, LETTERS), drawn(0)

    def step(carry, x):
      params, state = carry
      loss = lambda p: jnp.mean((forward(p, x) - forward(teacher, x)) ** 2)
      value, grads = jax.value_and_grad(loss)(params)
      updates, state = tx.update(grads, state, params)
      return (optax.apply_updates(params, updates), state), value

    return jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), x)[1])(params)

  found = {}
  for name, optim in (('adamw', AdamW(3e-3, b2=0.999)), ('lion', Lion(1e-3))):
    optim = dataclasses.replace(optim, schedule=Constant(0), decay=0.0)
    fields = {field: value for field, value in INT8.items() if hasattr(optim, field)}
    found[name] = run(optim), run(dataclasses.replace(optim, **fields))
  return found


@pytest.mark.parametrize('name', ['adamw', 'lion'])
def test_training_in_8_bits_matches_float32(losses, name):
  exact, found = losses[name]
  assert exact[-20:].mean() < 0.5 * exact[0]
  np.testing.assert_allclose(found[-20:].mean(), exact[-20:].mean(), rtol=0.02)
  assert not (found == exact).all()


def test_letters_follow_the_parameters():
  params = jax.eval_shape(lambda: drawn(0))
  tx = AdamW(rounding='master', **INT8).make(9, LETTERS)
  state = state_letters(tx, params, LETTERS).inner['rule']
  assert state.mu['w'] == ('DF', 'Df')
  assert state.nu['out'] == ('FD', 'Fd')
  assert state.nu['small'] == 'DR'


class Run:
  """Three steps of a small model with moments in 8 bits, on a mesh."""

  def __init__(self, folder, mesh, devices):
    fields = {'model__d_model': 64, 'optim__ema': 0.9, 'optim__accumulate': 2}
    fields |= {'optim__m_dtype': 'int8', 'optim__v_dtype': 'int8'}
    self.x = config.override(experiment(folder, **fields), '..d_ff', '1024')
    self.x = dataclasses.replace(self.x, mesh=mesh)
    self.built = build(self.x, devices)
    tok = np.random.default_rng(0).integers(0, 256, (8, 17)).astype(np.int32)
    features = {'input_ids': tok[:, :-1], 'labels': tok[:, 1:]}
    features['weights'] = np.ones((8, 16), np.float32)
    self.batch = shard.put(features, self.built.batch.shardings, 8, slice(0, 8))
    self.state = self.built.init(step_lib.init_key(0))
    self.losses = [self.step() for _ in range(3)]

  def step(self):
    self.state, metrics = self.built.step(self.state, self.batch)
    return float(metrics['loss'])


@pytest.fixture(scope='module')
def sharded(tmp_path_factory):
  return Run(tmp_path_factory.mktemp('int8'), Mesh(2, 2, 2), jax.devices())


def test_mesh_matches_one_device(sharded, tmp_path):
  single = Run(tmp_path, Mesh(), jax.devices()[:1])
  np.testing.assert_allclose(sharded.losses, single.losses, atol=2e-3)
  assert single.losses[2] < single.losses[0]


def test_codes_and_scales_are_sharded_like_the_parameter(sharded):
  spec = lambda tree: tree['segment_0']['block_0']['ffn']['up']['kernel'].sharding.spec
  moments = sharded.state['opt']['rule']
  assert spec(sharded.state['params']) == jax.P(None, ('fsdp',), ('tensor',))
  for tree in (moments.mu, moments.nu):
    found = tree['segment_0']['block_0']['ffn']['up']['kernel']
    assert found.codes.sharding.spec == found.scales.sharding.spec == spec(sharded.state['params'])


def test_checkpoint_continues_bit_for_bit(sharded, tmp_path):
  checkpoints = Checkpoints(tmp_path, 1)
  checkpoints.save(3, sharded.state, sharded.x, None)
  checkpoints.close()
  restored = read_state(checkpoints.path / '3', sharded.built.like())
  expected = sharded.step(), jax.tree.map(np.asarray, sharded.state)
  sharded.state = restored
  found = sharded.step(), jax.tree.map(np.asarray, sharded.state)
  jax.tree.map(np.testing.assert_array_equal, found, expected)
