"""Norms, activations, feed-forward networks, projections and initializers match their formulas."""

import itertools
import math

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm.core.precision import Precision
from tfm.parts import act, init, norm
from tfm.parts.context import Ctx, Dims, Run
from tfm.parts.contract import contract
from tfm.parts.ffn import Glu, Mlp
from tfm.parts.tokeninfo import TokenInfo

D = 32
DIMS = Dims(D, 2, init.Normal(), Run())


@pytest.fixture(scope='module')
def x():
  return np.asarray(jax.random.normal(jax.random.key(0), (2, 3, D)) * 3 + 1)


def run(part, x, dims=DIMS):
  module = part.make(dims)
  given = (jnp.asarray(x), *condition(part))
  variables = module.init(jax.random.key(0), *given)
  return np.asarray(module.apply(variables, *given), np.float32)


def condition(part):
  """Return the condition of a norm, if it needs one, for one example."""
  return (jnp.ones((1, D)),) if getattr(part, 'conditioned', False) else ()


def test_layer_norm_is_invariant_to_shift_and_scale(x):
  part = norm.LayerNorm(0.0)
  np.testing.assert_allclose(run(part, 2.5 * x + 7), run(part, x), atol=1e-5)
  y = run(part, x)
  np.testing.assert_allclose(y.mean(-1), 0, atol=1e-6)
  np.testing.assert_allclose(y.var(-1), 1, rtol=1e-5)


def test_rms_norm_equals_layer_norm_of_centred_vectors(x):
  part = norm.RMSNorm(0.0)
  np.testing.assert_allclose(run(part, 2.5 * x), run(part, x), atol=1e-6)
  centred = x - x.mean(-1, keepdims=True)
  np.testing.assert_allclose(run(part, centred), run(norm.LayerNorm(0.0), x), atol=1e-5)


@pytest.mark.parametrize(('one_plus', 'start'), [(False, 1.0), (True, 0.0)])
@pytest.mark.parametrize('kind', [norm.RMSNorm, norm.LayerNorm])
def test_norm_starts_with_scale_one(x, kind, one_plus, start):
  module = kind(one_plus=one_plus).make(DIMS)
  params = module.init(jax.random.key(0), jnp.asarray(x))
  assert (np.asarray(params['params']['scale'].value) == start).all()
  np.testing.assert_allclose(run(kind(one_plus=one_plus), x), run(kind(), x))


@pytest.mark.parametrize('part', [norm.LayerNorm(bias=False), norm.RMSNorm(), norm.CapsuleNorm()])
def test_norm_per_head_equals_separate_norms(part):
  x_BTNH = np.asarray(jax.random.normal(jax.random.key(1), (2, 3, 4, 8)))
  scale_NH = np.asarray(jax.random.normal(jax.random.key(2), (4, 8)))
  each = part.make(DIMS, 'NH').apply({'params': {'scale': scale_NH}}, x_BTNH)
  one = lambda n: part.make(DIMS, 'H').apply({'params': {'scale': scale_NH[n]}}, x_BTNH[:, :, n])
  np.testing.assert_allclose(each, np.stack([one(n) for n in range(4)], 2), rtol=1e-6)


def test_scale_norm_and_fix_norm_lengths(x):
  np.testing.assert_allclose(
    np.linalg.norm(run(norm.ScaleNorm(), x), axis=-1), math.sqrt(D), rtol=1e-5
  )
  np.testing.assert_allclose(np.linalg.norm(run(norm.FixNorm(), x), axis=-1), 1, rtol=1e-5)


def test_capsule_norm_squashes_lengths_below_one(x):
  length = np.linalg.norm(x, axis=-1, keepdims=True)
  y = run(norm.CapsuleNorm(), x)
  np.testing.assert_allclose(y, length**2 / (1 + length**2) * x / length, atol=1e-6)
  sizes = [
    np.linalg.norm(run(norm.CapsuleNorm(), c * x), axis=-1) for c in (0.01, 0.1, 1.0, 10.0, 1e4)
  ]
  assert all((a < b).all() for a, b in itertools.pairwise(sizes))
  assert (sizes[-1] <= 1 + 1e-6).all()
  small = 1e-3 * x / length
  np.testing.assert_allclose(run(norm.CapsuleNorm(), small), 1e-3 * small, rtol=1e-5)


@pytest.mark.parametrize('name', norm.TABLE)
def test_norm_of_zeros_has_a_finite_gradient(name):
  part, zeros = norm.TABLE[name](), jnp.zeros((1, 1, D))
  module, more = part.make(DIMS), condition(part)
  params = module.init(jax.random.key(0), zeros, *more)
  y, g = jax.value_and_grad(lambda x: module.apply(params, x, *more).sum())(zeros)
  assert np.isfinite(y)
  assert np.isfinite(g).all()


@pytest.mark.parametrize('name', norm.TABLE)
def test_norm_of_16_bits_reduces_in_32_bits(name, x):
  dims = DIMS.replace(run=Run(Precision(compute='bfloat16')))
  x16 = jnp.asarray(x, jnp.bfloat16)
  np.testing.assert_allclose(
    run(norm.TABLE[name](), x16, dims), run(norm.TABLE[name](), x16.astype('float32')), rtol=0.01
  )


PUBLISHED = {
  'relu': (1.0, 0.0),
  'gelu': (0.8413447, -0.1586553),
  'gelu_tanh': (0.8411920, -0.1588080),
  'silu': (0.7310586, -0.2689414),
  'sigmoid': (0.7310586, 0.2689414),
  'identity': (1.0, -1.0),
  'tanh': (0.7615941559557649, -0.7615941559557649),
  'relu2': (1.0, 0.0),
  'elu1': (2.0, 0.3678794),
  'quick_gelu': (0.8457958, -0.1542042),
}


@pytest.mark.parametrize('name', act.TABLE)
def test_activations_have_the_published_values(name):
  assert name in PUBLISHED, 'PUBLISHED needs the values at 1 and -1'
  np.testing.assert_allclose(
    act.TABLE[name]()(jnp.asarray([1.0, -1.0])), PUBLISHED[name], atol=2e-6
  )


def test_gelu_approximations_are_close():
  x = jnp.linspace(-6, 6, 1001)
  assert 1e-5 < np.abs(act.Gelu()(x) - act.GeluTanh()(x)).max() < 5e-4
  np.testing.assert_allclose(act.Swish(1.702)(x), act.QuickGelu()(x), atol=1e-6)


def _ffn(part, x_BTD):
  info = TokenInfo(jnp.zeros(x_BTD.shape[:2], jnp.int32), jnp.ones(x_BTD.shape[:2], jnp.int32))
  module = part.make(DIMS)
  params = nn.unbox(module.init(jax.random.key(0), x_BTD, Ctx(info))['params'])
  return jax.tree.map(np.asarray, params), np.asarray(
    module.apply({'params': params}, x_BTD, Ctx(info))[0]
  )


def test_mlp_equals_its_formula(x):
  params, y = _ffn(Mlp(48, act.Relu()), jnp.asarray(x))
  keys, values = params['up']['kernel'], params['down']['kernel']
  np.testing.assert_allclose(
    y, sum(np.maximum(x @ keys[:, i], 0)[..., None] * values[i] for i in range(48)), atol=1e-5
  )


def test_glu_equals_its_formula(x):
  params, y = _ffn(Glu(64), jnp.asarray(x))
  gate, up = x @ params['gate']['kernel'], x @ params['up']['kernel']
  np.testing.assert_allclose(
    y, (gate / (1 + np.exp(-gate)) * up) @ params['down']['kernel'], atol=1e-5
  )
  size = lambda p: sum(a.size for a in jax.tree.leaves(p))
  assert size(params) == size(_ffn(Mlp(96, bias=False), jnp.asarray(x))[0])


@pytest.mark.parametrize(('n_in', 'w_shape'), [(1, (6, 2, 3)), (2, (2, 3, 6)), (1, (6, 4))])
def test_projection_vjp_equals_autodiff(n_in, w_shape):
  k = jax.random.split(jax.random.key(0), 3)
  x, w = jax.random.normal(k[0], (2, 5, *w_shape[:n_in])), jax.random.normal(k[1], w_shape)
  plain = lambda x, w: jnp.tensordot(x, w, n_in)
  g = jax.random.normal(k[2], plain(x, w).shape)
  for f, h in zip(
    jax.vjp(lambda x, w: contract(x, w, n_in), x, w)[1](g), jax.vjp(plain, x, w)[1](g), strict=True
  ):
    np.testing.assert_allclose(f, h, atol=1e-5)


def _std(part, role, n_in=400, n_out=300, depth=8, head_dim=25):
  dims = Dims(400, depth, part, Run(), head_dim=head_dim)
  return float(
    jnp.std(part.weight(role, n_in, n_out, dims)(jax.random.key(0), (n_in, n_out), jnp.float32))
  )


@pytest.mark.parametrize(
  ('part', 'expected'),
  [
    (init.Normal(0.02), {'q': 0.02, 'embed': 0.02, 'o': 0.005, 'down': 0.005, 'head': 0.02}),
    (init.Normal(0.02, depth_scaled=False), {'q': 0.02, 'o': 0.02}),
    (init.FanIn(), {'q': 0.05, 'embed': 1.0, 'o': 0.05, 'relative': 0.02, 'head': 0.05}),
    (init.FanIn(2.0, 0.5, depth_scaled=True), {'q': 0.1, 'positions': 0.5, 'down': 0.025}),
    (init.T5Init(), {'q': 0.01, 'k': 0.05, 'o': 0.05, 'embed': 1.0, 'relative': 0.05, 'up': 0.05}),
    (init.Xavier(), {'q': (2 / 700) ** 0.5, 'embed': 0.05, 'down': (2 / 700) ** 0.5}),
  ],
)
def test_initial_weights_have_the_deviation_of_their_role(part, expected):
  for role, std in expected.items():
    assert _std(part, role) == pytest.approx(std, rel=0.02), role


def test_truncated_normal_is_cut_at_two_deviations():
  dims = Dims(400, 8, init.Normal(), Run())
  start = init.Normal(0.02, depth_scaled=False, truncated=True).weight('q', 400, 300, dims)
  w = start(jax.random.key(0), (400, 300), jnp.float32)
  assert float(jnp.abs(w).max()) == pytest.approx(0.04, rel=0.01)
  assert float(jnp.std(w)) == pytest.approx(0.02 * 0.8796, rel=0.02)


def test_every_init_is_tested():
  assert set(init.TABLE) == {'normal', 'fan_in', 't5', 'xavier'}, (
    'the test above needs the deviations of the new init'
  )
