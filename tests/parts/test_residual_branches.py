"""Residual scales and stochastic depth of branches."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm.core import config, errors
from tfm.model import count, transformer
from tfm.model.spec import Block, Model, Segment
from tfm.parts.context import Ctx, Dims, Run
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn import Glu
from tfm.parts.init import Normal
from tfm.parts.mixer import Attention
from tfm.parts.residual_layout import After, Sandwich, Unnormalised
from tfm.parts.residual_scale import Fixed, LayerScale, ReZero
from tfm.parts.tokeninfo import TokenInfo
from tfm.parts.unit.blocks import Drop

BLOCK = Block(Attention(2, head_dim=4), Glu(12))
IDS = jnp.asarray(np.random.default_rng(0).integers(1, 32, (2, 6)))


def model(depth=3, **fields):
  return Model(Tokens(32), 8, (Segment((dataclasses.replace(BLOCK, **fields),), depth),))


def hidden(spec, params, **options):
  return jax.jit(
    lambda p: transformer.apply(spec, p, input_ids=IDS, **options)['last_hidden_state']
  )(params)


def test_rezero_without_norms_starts_as_the_identity():
  for depth in (1, 40):
    spec = dataclasses.replace(
      model(depth, residual_layout=Unnormalised(), residual_scale=ReZero())
    )
    params = transformer.init(spec, jax.random.key(0))
    normed = hidden(model(1, residual_scale=ReZero()), params | {'segment_0': _first(params)})
    np.testing.assert_array_equal(hidden(spec, params), normed)


def _first(params):
  one = jax.tree.map(lambda a: a[:1], params['segment_0'])
  scale = {'scale': jnp.ones((1, 8))}
  return {'block_0': one['block_0'] | {'mixer_norm': scale, 'ffn_norm': scale}}


def test_layer_scale_is_a_factor_of_its_branch():
  key = jax.random.key(0)
  plain, spec = model(), model(residual_scale=LayerScale(1.0))
  np.testing.assert_array_equal(
    hidden(spec, transformer.init(spec, key)), hidden(plain, transformer.init(plain, key))
  )
  half = transformer.init(model(residual_scale=LayerScale(0.5)), key)
  scaled = transformer.init(plain, key)
  for name, last in (('mixer', 'o'), ('ffn', 'down')):
    kernel = scaled['segment_0']['block_0'][name][last]['kernel']
    scaled['segment_0']['block_0'][name][last]['kernel'] = 0.5 * kernel
  np.testing.assert_allclose(hidden(spec, half), hidden(plain, scaled), atol=1e-6)


@pytest.mark.parametrize(
  ('residual_layout', 'last'), [(After(), 'norm'), (Sandwich(), 'post_norm')]
)
def test_residual_scale_is_applied_after_the_output_norm(residual_layout, last):
  plain = model(residual_layout=residual_layout)
  params = transformer.init(plain, jax.random.key(0))
  loud = hidden(model(residual_layout=residual_layout, residual_scale=Fixed(0.5)), params)
  for branch in ('mixer', 'ffn'):
    scale = params['segment_0']['block_0'][f'{branch}_{last}']['scale']
    params['segment_0']['block_0'][f'{branch}_{last}']['scale'] = 0.5 * scale
  np.testing.assert_allclose(loud, hidden(plain, params), atol=1e-6)


@pytest.mark.parametrize(('residual_scale', 'each'), [(LayerScale(), 8), (ReZero(), 1)])
def test_every_branch_has_a_separate_residual_scale(residual_scale, each):
  assert (
    count.count_params(model(residual_scale=residual_scale)) - count.count_params(model())
    == 3 * 2 * each
  )


def dropped(layer, rate=0.6, depth=3, rows=2000):
  one = jnp.ones((rows, 1), jnp.int32)
  ctx = Ctx(TokenInfo(one, one), layer=jnp.int32(layer), train=True)
  module = Drop(Block(drop_path=rate), Dims(4, depth, Normal(), Run()))
  return np.asarray(
    module.apply({}, jnp.ones((rows, 1, 4)), ctx, rngs={'dropout': jax.random.key(0)})
  )


@pytest.mark.parametrize('layer', [0, 1, 2])
def test_drop_path_rate_grows_with_depth(layer):
  y, rate = dropped(layer), 0.6 * (layer + 1) / 3
  gone = (y == 0).all((1, 2))
  assert abs(gone.mean() - rate) < 4 * np.sqrt(rate * (1 - rate) / len(y))
  np.testing.assert_allclose(y[~gone], 1 / (1 - rate), rtol=1e-5)


def test_drop_path_needs_training_and_depends_on_the_key():
  spec = model(drop_path=0.5)
  params = transformer.init(dataclasses.replace(spec, init=Normal(0.5)), jax.random.key(0))
  still = hidden(spec, params)
  np.testing.assert_array_equal(still, hidden(model(), params))
  moved = hidden(spec, params, key=jax.random.key(1))
  assert np.abs(moved - still).max() > 1e-3
  np.testing.assert_allclose(
    hidden(spec, params, key=jax.random.key(1), run=Run(loop='unroll')), moved, atol=1e-5
  )
  assert np.abs(hidden(spec, params, key=jax.random.key(2)) - moved).max() > 1e-3


def test_drop_path_above_one_is_an_error():
  with pytest.raises(
    errors.ConfigError,
    match=r'pattern\.0: drop_path=1\.5 is not a probability\. Expected at least 0',
  ):
    config.validate(model(drop_path=1.5))
