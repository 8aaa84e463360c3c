"""Content-based and learned relative positions match their formulas."""

import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm.core import config, errors
from tfm.model import transformer
from tfm.model.spec import Block, Model, Segment
from tfm.parts.absolute import LSPE, Sinusoidal
from tfm.parts.context import Dims, Run
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn import Glu
from tfm.parts.init import TABLE as INITS
from tfm.parts.mixer import Attention, Fourier
from tfm.parts.relative import TUPE, XL, ALiBi, RoPE, Shaw, Toeplitz
from tfm.parts.term import sum_terms
from tfm.parts.tokeninfo import TokenInfo

N, H, D, T = 2, 4, 8, 9
DIMS = Dims(D, 1, INITS['normal'](), Run(), heads=N, head_dim=H, value_dim=H)
POS = jnp.asarray([[0, 1, 2, 3, 4, 0, 1, 2, 7]])
INFO = TokenInfo(POS, jnp.ones_like(POS))
Q, K = (jax.random.normal(jax.random.key(i), (1, T, N, H)) for i in (1, 2))


def made(spec, method, *args):
  """Return random parameters, and the result of `method`."""
  module = spec.make(DIMS)
  params = module.init(jax.random.key(0), *args, method=method)['params']
  params = nn.unbox(params)
  leaves, tree = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(7), len(leaves))
  params = tree.unflatten(
    [jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
  )
  return params, jax.jit(lambda p, *a: module.apply({'params': p}, *a, method=method))(
    params, *args
  )


def content_sum(spec, *args):
  """Return random parameters, and the sum of the content terms."""
  params, _ = made(spec, 'content', *args)
  module = spec.make(DIMS)
  return params, jax.jit(
    sum_terms(lambda *a: module.apply({'params': params}, *a, method='content'))
  )(*args)


def gap(i, j, far):
  return int(np.clip(int(POS[0, j]) - int(POS[0, i]), -far, far)) + far


def test_toeplitz_bias_is_the_table_entry_of_the_distance():
  module = Toeplitz(3).make(DIMS)
  params = nn.unbox(module.init(jax.random.key(0), N, INFO, INFO, method='bias')['params'])
  bias = module.apply({'params': params}, N, INFO, INFO, method='bias')
  table = np.asarray(params['table'])
  expected = [[[table[gap(i, j, 3), n] for j in range(T)] for i in range(T)] for n in range(N)]
  np.testing.assert_array_equal(bias[0], expected)


def test_shaw_score_is_a_product_with_the_distance_vector():
  params, more = content_sum(Shaw(2), Q, K, INFO, INFO)
  expected = [
    [[Q[0, i, n] @ params['table'][gap(i, j, 2)] for j in range(T)] for i in range(T)]
    for n in range(N)
  ]
  np.testing.assert_allclose(more[0], expected, atol=1e-5)


def test_xl_score_is_a_product_with_the_projected_wave():
  params, more = content_sum(XL(), Q, K, INFO, INFO)
  w = 1e4 ** (-np.arange(D // 2) / (D // 2))
  v = Q + (params['v'] - params['u'])[None, None]
  expected = np.zeros((N, T, T))
  for i in range(T):
    for j in range(T):
      d = float(POS[0, i] - POS[0, j])
      r_NH = np.einsum(
        'd,dnh->nh', np.concatenate([np.sin(w * d), np.cos(w * d)]), params['distance']
      )
      expected[:, i, j] = (np.asarray(v[0, i]) * r_NH).sum(-1)
  np.testing.assert_allclose(more[0], expected, atol=1e-4)
  biased = made(XL(), 'queries', Q, POS)
  np.testing.assert_allclose(biased[1], Q + biased[0]['u'][None, None], atol=1e-6)


def test_tupe_score_is_a_product_of_projected_positions():
  params, bias = _tupe(TUPE(16))
  p = np.asarray(params['position'])
  q, k = (np.einsum('pd,dnh->pnh', p, params[n]) for n in 'qk')
  for i in range(T):
    for j in range(T):
      a, b = int(POS[0, i]), int(POS[0, j])
      expected = (q[a] * k[b]).sum(-1) / (2 * H) ** 0.5
      expected = params['from'] if a == 0 else params['to'] if b == 0 else expected
      np.testing.assert_allclose(bias[0, :, i, j], expected, atol=1e-4)
  plain = _tupe(TUPE(16, reset=False))
  assert 'from' not in plain[0]


def _tupe(spec):
  module = spec.make(DIMS)
  params = nn.unbox(module.init(jax.random.key(0), INFO, INFO, method='product')['params'])
  params = jax.tree.map(lambda x: jax.random.normal(jax.random.key(x.size), x.shape), params)
  given = lambda *a, method: module.apply({'params': params}, *a, method=method)
  product = given(INFO, INFO, method='product').total(INFO, INFO)
  return params, product + given(N, INFO, INFO, method='bias') if spec.biased else product


def test_tupe_halves_the_scale_of_token_scores():
  params, _ = _tupe(TUPE(16))
  scaled = TUPE(16).make(DIMS).apply({'params': params}, Q, POS, method='rotate')
  np.testing.assert_allclose(jnp.square(scaled).sum(), jnp.square(Q).sum() / 2**0.5, rtol=1e-5)


def test_rope_far_caps_the_distance():
  pos = jnp.asarray([[0, 1, 5, 30]])
  info = TokenInfo(pos, jnp.ones_like(pos))
  q, k = Q[:, :4], K[:, :4]
  spec = RoPE(far=4)
  rotated = spec.rotate(q, pos), spec.rotate(k, pos)
  scores = jnp.einsum('BTNH,BSNH->BNTS', *rotated) + sum_terms(spec.content)(*rotated, info, info)
  for i in range(4):
    for j in range(4):
      distance = jnp.minimum(pos[:, i] - pos[:, j], 4)[:, None]
      expected = (spec.rotate(q[:, i : i + 1], distance) * k[:, j : j + 1]).sum(-1)[0, 0]
      np.testing.assert_allclose(scores[0, :, i, j], expected, atol=1e-4)
  assert not dataclasses.replace(spec, far=None).contextual


def test_lspe_without_feed_forward_is_sinusoidal():
  module, x = LSPE(16).make(DIMS), jnp.zeros((1, T, D))
  params = nn.unbox(module.init(jax.random.key(0), x, POS)['params'])
  none = params | {'down': jax.tree.map(jnp.zeros_like, params['down'])}
  np.testing.assert_allclose(
    module.apply({'params': none}, x, POS), Sinusoidal()(x, POS), atol=1e-6
  )
  grads = jax.grad(lambda p: jnp.square(module.apply({'params': p}, x, POS) - 1).sum())(params)
  assert np.abs(grads['frequency']).max() > 0
  assert np.isfinite(module.apply({'params': params}, x, POS * 0.5)).all()


@pytest.mark.parametrize(
  ('piece', 'sentence'),
  [
    (Toeplitz(0), 'far=0 is not a distance'),
    (Shaw(-1), 'far=-1 is not a distance'),
    (XL(1.0), 'base=1.0 does not increase wavelengths'),
    (TUPE(0), 'length=0 is not a number of positions'),
    (RoPE(far=0), 'far=0 is not a distance'),
  ],
)
def test_fields_out_of_range_are_errors(piece, sentence):
  with pytest.raises(errors.ConfigError, match=sentence):
    config.validate(piece)


@pytest.mark.parametrize('relative', [XL(), RoPE(), Shaw(2)])
def test_shared_relative_position_equals_per_layer_copies(relative):
  ids = jnp.asarray([[5, 6, 7, 8]])
  stack = lambda **fields: (Segment((Block(Attention(2, head_dim=4, **fields), Glu(8)),), 2),)
  own, shared = (
    Model(Tokens(16), 8, stack(relative=relative)),
    Model(Tokens(16), 8, stack(), shared_relative=relative),
  )
  config.validate(shared)
  params = jax.tree.map(lambda a: a + 0.1, transformer.init(shared, jax.random.key(0)))
  given = params.pop('shared_relative', None)
  copied = jax.tree.map(jnp.copy, params)
  if given is not None:
    copied['segment_0']['block_0']['mixer']['relative'] = jax.tree.map(
      lambda a: jnp.stack([a, a]), given
    )
    params['shared_relative'] = given
  logits = (
    transformer.apply(s, p, input_ids=ids)['logits'] for s, p in ((own, copied), (shared, params))
  )
  np.testing.assert_array_equal(*logits)


def test_unsharable_relative_positions_are_errors():
  block = lambda mixer: Block(mixer, Glu(8))
  sizes = (Segment((block(Attention(2, head_dim=4)), block(Attention(2, head_dim=8)))),)
  with pytest.raises(errors.ConfigError, match=r'its vectors are used by heads of sizes \[4, 8\]'):
    config.validate(Model(Tokens(16), 8, sizes, shared_relative=Shaw()))
  with pytest.raises(
    errors.ConfigError, match='shared_relative: is set, but no mixer uses attention'
  ):
    config.validate(Model(Tokens(16), 8, (Segment((block(Fourier()),)),), shared_relative=ALiBi()))
