"""Identities of attention: grouped heads, sinks, caps and masked-out queries."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm.core import config, errors
from tfm.model.spec import Block, Model, Segment
from tfm.parts.attend.dense import softmax
from tfm.parts.context import Ctx, Dims, Run
from tfm.parts.cross import CrossAttention
from tfm.parts.embed.tokens import Tokens
from tfm.parts.init import Normal
from tfm.parts.mask import Mask
from tfm.parts.mixer import Attention
from tfm.parts.norm import LayerNorm
from tfm.parts.relative import RoPE
from tfm.parts.tokeninfo import TokenInfo

D, T = 32, 6
DIMS = Dims(D, 2, Normal(0.2), Run())


@pytest.fixture(scope='module')
def x_BTD():
  return jax.random.normal(jax.random.key(0), (2, T, D))


def ctx(segment=None):
  pos = jnp.broadcast_to(jnp.arange(T), (2, T))
  return Ctx(TokenInfo(pos, jnp.ones_like(pos) if segment is None else jnp.asarray(segment)))


@pytest.fixture(scope='module')
def full_params(x_BTD):
  """Return parameters of four heads with four key heads."""
  return nn.unbox(
    Attention(4, 4, 8).make(DIMS).init(jax.random.key(1), x_BTD, ctx(), None)['params']
  )


def run(spec, params, x_BTD, where=None):
  return np.asarray(spec.make(DIMS).apply({'params': params}, x_BTD, where or ctx(), None)[0])


def grouped(params, K):
  """Return the parameters of K key heads, taken from the first head of each group."""
  return {n: {'kernel': p['kernel'][:, :: 4 // K]} if n in 'kv' else p for n, p in params.items()}


def test_equal_head_counts_are_multi_head_attention(full_params, x_BTD):
  np.testing.assert_array_equal(
    run(Attention(4, 4, 8), full_params, x_BTD), run(Attention(4), full_params, x_BTD)
  )


@pytest.mark.parametrize('K', [1, 2])
def test_grouped_heads_equal_repeated_key_weights(full_params, x_BTD, K):
  few = grouped(full_params, K)
  repeated = {
    n: {'kernel': jnp.repeat(p['kernel'], 4 // K, 1)} if n in 'kv' else p for n, p in few.items()
  }
  spec = Attention(4, K, 8, RoPE())
  np.testing.assert_allclose(
    run(spec, few, x_BTD), run(Attention(4, 4, 8, RoPE()), repeated, x_BTD), atol=1e-6
  )
  if K == 2:
    tiled = {
      n: {'kernel': jnp.tile(p['kernel'], (1, 2, 1))} if n in 'kv' else p for n, p in few.items()
    }
    assert (
      np.abs(run(spec, few, x_BTD) - run(Attention(4, 4, 8, RoPE()), tiled, x_BTD)).max() > 1e-3
    )


def test_unmasked_attention_is_permutation_equivariant(full_params, x_BTD):
  spec, order = Attention(4, mask=Mask()), np.asarray([3, 1, 5, 0, 2, 4])
  np.testing.assert_allclose(
    run(spec, full_params, x_BTD)[:, order], run(spec, full_params, x_BTD[:, order]), atol=1e-6
  )


def test_causal_mask_makes_order_matter(full_params, x_BTD):
  spec, order = Attention(4), np.asarray([3, 1, 5, 0, 2, 4])
  assert (
    np.abs(run(spec, full_params, x_BTD)[:, order] - run(spec, full_params, x_BTD[:, order])).max()
    > 1e-3
  )


def test_fully_masked_tokens_return_zeros(full_params, x_BTD):
  y = run(Attention(4), full_params, x_BTD, ctx([[0] * T, [0, 0, 1, 1, 1, 1]]))
  assert not y[0].any()
  assert not y[1, :2].any()
  assert np.isfinite(y).all()


def test_limits_of_score_cap_and_sink(full_params, x_BTD):
  plain = run(Attention(4), full_params, x_BTD)
  np.testing.assert_allclose(run(Attention(4, cap=1e4), full_params, x_BTD), plain, atol=1e-5)
  sunk = lambda level: run(
    Attention(4, sink=True), full_params | {'sink': jnp.full((4,), level)}, x_BTD
  )
  np.testing.assert_allclose(sunk(-100.0), plain, atol=1e-6)
  assert np.abs(sunk(100.0)).max() < 1e-6


def test_zero_sink_is_a_key_of_score_zero():
  s = jnp.asarray([[1.0, 2.0]])
  with_sink = softmax(s, jnp.ones_like(s, bool), jnp.zeros((1, 1)))
  np.testing.assert_allclose(
    with_sink, jax.nn.softmax(jnp.asarray([[1.0, 2.0, 0.0]]))[:, :2], rtol=1e-6
  )


@pytest.mark.parametrize('size', [1e4, -1e4])
def test_softmax_of_large_scores_is_finite(size):
  s = jnp.asarray([[size, size + 1, 0.0]])
  ok = jnp.asarray([[True, True, False]])
  p = softmax(s, ok)
  np.testing.assert_allclose(p, [[0.2689414, 0.7310586, 0]], atol=1e-6)
  assert np.isfinite(jax.grad(lambda s: softmax(s, ok)[0, 0])(s)).all()
  assert not softmax(s, jnp.zeros_like(ok)).any()


def test_default_scale_depends_on_head_size(full_params, x_BTD):
  plain = run(Attention(4), full_params, x_BTD)
  np.testing.assert_array_equal(run(Attention(4, scale=8**-0.5), full_params, x_BTD), plain)
  assert np.abs(run(Attention(4, scale=1.0), full_params, x_BTD) - plain).max() > 1e-3


def test_dropout_is_for_training_and_preserves_the_mean():
  spec = Attention(4, dropout=0.5)
  x_BTD = jnp.ones((2, T, D))
  module, train = spec.make(DIMS), ctx().replace(train=True)
  params = module.init(jax.random.key(1), x_BTD, ctx(), None)
  still = module.apply(params, x_BTD, ctx(), None)[0]
  drawn = jax.vmap(lambda k: module.apply(params, x_BTD, train, None, rngs={'dropout': k})[0])(
    jax.random.split(jax.random.key(2), 400)
  )
  assert np.asarray(drawn).std(0).max() > 1e-3
  error = np.abs(np.asarray(drawn.mean(0)) - still)
  assert (error < 5 * np.asarray(drawn).std(0) / 20 + 1e-6).all()


@pytest.mark.parametrize('cls', [Attention, CrossAttention])
@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'heads': 0}, 'heads=0 is not a number of heads'),
    ({'heads': 6, 'kv_heads': 4}, 'heads=6 is not a multiple of kv_heads=4'),
    ({'head_dim': 0}, 'head_dim=0 is not a size'),
    ({'bias': 'qz'}, "bias='qz' has unknown letters z"),
  ],
)
def test_invalid_head_options_are_errors(cls, fields, message):
  with pytest.raises(errors.ConfigError, match=message):
    config.validate(cls(**fields))


def test_indivisible_heads_raise_an_error_with_the_path():
  block = Block(Attention(5), norm=LayerNorm())
  with pytest.raises(
    errors.ConfigError, match=r'pattern\.0\.mixer: heads=5 does not divide d_model=32'
  ):
    config.validate(Model(Tokens(64), 32, (Segment((block,), 1),)))
