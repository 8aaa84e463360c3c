"""Linear attention equals the quadratic sum over earlier tokens of a document."""

import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm.core import config, errors
from tfm.model import count
from tfm.model.spec import Block, Model, Segment
from tfm.parts.act import Relu
from tfm.parts.context import Ctx, Dims, Run
from tfm.parts.embed import Tokens
from tfm.parts.ffn import Mlp
from tfm.parts.init import Normal
from tfm.parts.mixer import LinearAttention
from tfm.parts.mixer import linear as linear_lib
from tfm.parts.tokeninfo import TokenInfo, positions

D, N, H, B, T = 12, 3, 5, 3, 150
SPEC = LinearAttention(N, H, bias='qo')
DIMS = Dims(D, 1, Normal(), Run())
_rng = np.random.default_rng(0)
X_BTD = _rng.standard_normal((B, T, D)).astype(np.float32)
WHOLE = np.ones((B, T), np.int32)
# Documents end inside and at the ends of chunks of 64 tokens; padding is on both sides and between
# documents.
PACKED = np.asarray(
  [
    [1] * 30 + [2] * 34 + [3] * 86,
    [0] * 70 + [1] * 70 + [0] * 10,
    [1] * 5 + [0] * 60 + [2] * 84 + [3],
  ],
  np.int32,
)


def info(segment_BT):
  return TokenInfo(positions(jnp.asarray(segment_BT)), jnp.asarray(segment_BT))


@functools.cache
def params(spec=SPEC):
  shapes = jax.eval_shape(
    lambda: spec.make(DIMS).init(jax.random.key(0), jnp.asarray(X_BTD), Ctx(info(WHOLE)))['params']
  )
  rng = np.random.default_rng(1)
  return jax.tree.map(
    lambda a: jnp.asarray(0.5 * rng.standard_normal(a.shape), jnp.float32), nn.unbox(shapes)
  )


def mixed(spec, p, x_BTD, segment_BT, cache=None):
  slot = None if cache is None else jnp.zeros(len(x_BTD), jnp.int32)
  return spec.make(DIMS).apply({'params': p}, x_BTD, Ctx(info(segment_BT), slot=slot), cache)


def quadratic(spec, p, x_BTD, segment_BT):
  """Return attention of each token to earlier tokens of its document, by definition."""
  feature = lambda a: np.where(a > 0, a + 1, np.exp(np.minimum(a, 0)))
  of = lambda name: (
    np.einsum('btd,dnh->btnh', x_BTD, np.asarray(p[name]['kernel'], np.float64))
    + np.asarray(p[name].get('bias', 0))
  )
  weight = np.einsum('btnh,bsnh->bnts', feature(of('q')), feature(of('k')))
  same = (
    (segment_BT[:, :, None] == segment_BT[:, None])
    & np.tri(x_BTD.shape[1], dtype=bool)
    & (segment_BT > 0)[:, None]
  )
  weight = np.where(same[:, None], weight, 0)
  y = (
    np.einsum('bnts,bsnh->btnh', weight, of('v'))
    / (weight.sum(-1).swapaxes(1, 2) + spec.eps)[..., None]
  )
  return np.einsum('btnh,nhd->btd', y, np.asarray(p['o']['kernel'], np.float64)) + np.asarray(
    p['o']['bias']
  )


@pytest.mark.parametrize('length', [1, 63, 64, 65, 128, T])
def test_chunks_equal_the_quadratic_sum_at_any_length(length):
  x_BTD, segments = X_BTD[:, :length], WHOLE[:, :length]
  outputs = jax.jit(lambda p, x: mixed(SPEC, p, x, segments)[0])(params(), x_BTD)
  np.testing.assert_allclose(
    outputs, quadratic(SPEC, params(), x_BTD, segments), rtol=1e-4, atol=1e-5
  )


def test_packed_documents_are_independent():
  outputs = jax.jit(lambda p, x: mixed(SPEC, p, x, PACKED)[0])(params(), X_BTD)
  expected, real = quadratic(SPEC, params(), X_BTD, PACKED), PACKED > 0
  np.testing.assert_allclose(np.asarray(outputs)[real], expected[real], rtol=1e-4, atol=1e-5)
  assert np.isfinite(outputs).all()


@pytest.mark.parametrize('cuts', [[70], [1, 2, 3, 69, 71, 149], [64, 128]])
def test_state_continues_a_sequence_after_any_cut(cuts):
  whole, real = quadratic(SPEC, params(), X_BTD, PACKED), PACKED > 0
  cache, outputs = SPEC.init_cache(D, B, T, 'bfloat16'), []
  for x_BTD, segments in zip(np.split(X_BTD, cuts, 1), np.split(PACKED, cuts, 1), strict=True):
    y_BTD, cache = jax.jit(lambda p, x, c, s=segments: mixed(SPEC, p, x, s, c))(
      params(), x_BTD, cache
    )
    outputs.append(y_BTD)
  np.testing.assert_allclose(np.concatenate(outputs, 1)[real], whole[real], rtol=1e-4, atol=1e-5)


def test_history_is_the_state_after_each_token():
  run = jax.jit(lambda p, x, c, s: mixed(SPEC, p, x, s, c)[1])
  start = run(params(), X_BTD[:, :40], SPEC.init_cache(D, B, T, 'float32'), PACKED[:, :40])
  after = run(params(), X_BTD[:, 60:68], start | {'history': {}}, PACKED[:, 60:68])
  cache = start
  for t in range(8):
    for name, a in cache['rows'].items():
      np.testing.assert_allclose(after['history']['rows'][name][:, t], a, rtol=1e-5, atol=1e-5)
    cache = run(params(), X_BTD[:, 60 + t : 61 + t], cache, PACKED[:, 60 + t : 61 + t])
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
    after['rows'],
    cache['rows'],
  )


def test_chunked_gradients_match_one_large_chunk(monkeypatch):
  target = jnp.asarray(_rng.standard_normal(X_BTD.shape) * (PACKED > 0)[..., None], jnp.float32)
  grad = lambda: jax.jit(jax.grad(lambda p: jnp.sum(mixed(SPEC, p, X_BTD, PACKED)[0] * target)))(
    params()
  )
  chunked = grad()
  monkeypatch.setattr(linear_lib, 'CHUNK', T)
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * np.abs(b).max())
  jax.tree.map(close, chunked, grad())


def test_long_sequences_make_no_quadratic_array():
  program = jax.make_jaxpr(lambda p, x: mixed(SPEC, p, x, np.ones((1, 1024), np.int32))[0])
  text = str(program(params(), jax.ShapeDtypeStruct((1, 1024, D), jnp.float32)))
  assert '1024,1024' not in text
  assert '64,64' in text


def test_state_and_flops_are_constant_in_length():
  spec = Model(Tokens(32), D, (Segment((Block(SPEC, Mlp(8)),), 2),))
  assert count.state_bytes(spec) == 2 * 4 * (N * H * H + N * H + 1)
  assert (
    SPEC.flops(D, SPEC.pairs(10))
    == SPEC.flops(D, SPEC.pairs(10_000))
    == 8 * D * N * H + 4 * N * H * H
  )
  wide = config.validate(
    Model(Tokens(32), D, (Segment((Block(LinearAttention(2, feature=Relu()), Mlp(8)),), 2),))
  )
  assert count.state_bytes(wide) == 2 * 4 * (2 * 6 * 7 + 1)


@pytest.mark.parametrize(
  ('mixer', 'message'),
  [
    (LinearAttention(0), r'heads=0 is not a number of heads\. Expected at least 1'),
    (LinearAttention(5), r'heads=5 does not divide d_model=12\. Expected a divisor of d_model'),
    (LinearAttention(2, 0), r'head_dim=0 is not a size\. Expected at least 1'),
    (LinearAttention(2, bias='qx'), r"bias='qx' has unknown letters x\. Expected letters of qkvo"),
    (LinearAttention(2, eps=-1.0), r'eps=-1\.0 is negative\. Expected at least 0'),
  ],
)
def test_fields_out_of_range_are_errors(mixer, message):
  with pytest.raises(errors.ConfigError, match=message):
    config.validate(Model(Tokens(32), D, (Segment((Block(mixer, Mlp(8)),)),)))
