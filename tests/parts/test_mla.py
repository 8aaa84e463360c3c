"""Latent attention: absorbed, expanded and plain attention are equal; costs."""

import dataclasses
import itertools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm.core import config, errors
from tfm.model import cache as cache_lib
from tfm.model import count, transformer
from tfm.model.spec import Block, Model, Segment
from tfm.parts.attend import Blockwise
from tfm.parts.context import Ctx, Dims, Run
from tfm.parts.embed.tokens import Tokens
from tfm.parts.init import Normal
from tfm.parts.mask import Causal, Window
from tfm.parts.mixer import MLA, Attention
from tfm.parts.norm import LayerNorm
from tfm.parts.relative import XL, ALiBi, Relative, RoPE, T5Bias
from tfm.parts.relative.scaling import Yarn
from tfm.parts.state import Slot
from tfm.parts.tokeninfo import TokenInfo

D, T, N = 32, 6, 4
DIMS = Dims(D, 2, Normal(0.2), Run())
EMPTY = jnp.zeros(2, jnp.int32)
SMALL = MLA(N, None, 16, 8, 4, 12)
V3 = MLA(128, 1536, 512, 128, 64, 128)


def ctx(slot=None):
  pos = jnp.broadcast_to(jnp.arange(T), (2, T))
  return Ctx(TokenInfo(pos, jnp.ones_like(pos)), slot=slot)


def started(spec):
  x_BTD = jax.random.normal(jax.random.key(0), (2, T, D))
  params = nn.unbox(
    jax.jit(lambda k: spec.make(DIMS).init(k, x_BTD, ctx(), None)['params'])(jax.random.key(1))
  )
  return jax.tree.map(lambda a: a + 0.1, params), x_BTD


@dataclasses.dataclass(frozen=True)
class FixedForm(MLA):
  """MLA with a fixed choice of form."""

  absorbed: bool = True

  def absorbs(self, T, S):
    return self.absorbed


FIELDS = {
  'plain': {},
  'q_rank': {'q_rank': 20},
  'biases': {'bias': 'qco', 'q_rank': 20, 'norm': LayerNorm()},
  'yarn': {
    'relative': RoPE(scaling=Yarn(8.0, 4, mscale=0.7, mscale_all=0.9), layout='interleaved')
  },
  'alibi': {'relative': ALiBi()},
  't5': {'relative': T5Bias(8, 16)},
  'xl': {'relative': XL()},
  'rope-far': {'relative': RoPE(far=2)},
  'cap-sink-window': {'cap': 2.0, 'sink': True, 'mask': Causal() & Window(3)},
}


ATTEND = {'dense': DIMS.run.attend, 'blockwise': Blockwise(4, 4)}
KEPT = {
  ('rope-far', 'dense'),
  ('xl', 'blockwise'),
  *itertools.product(('plain', 'cap-sink-window'), ATTEND),
}


@pytest.mark.parametrize('attend', ATTEND)
@pytest.mark.parametrize('name', FIELDS)
@pytest.mark.large(when=lambda name, attend: (name, attend) not in KEPT)
def test_absorbed_equals_expanded_equals_no_cache(name, attend):
  spec = dataclasses.replace(SMALL, **FIELDS[name])
  dims = DIMS.replace(run=Run(attend=ATTEND[attend]))
  params, x_BTD = started(spec)
  fixed = lambda absorbed: FixedForm(
    **{f.name: getattr(spec, f.name) for f in dataclasses.fields(MLA)}, absorbed=absorbed
  )

  @jax.jit
  def all_three(params):
    cached = [
      fixed(absorbed)
      .make(dims)
      .apply({'params': params}, x_BTD, ctx(EMPTY), spec.init_cache(D, 2, 8, 'float32'))[0]
      for absorbed in (True, False)
    ]
    return spec.make(dims).apply({'params': params}, x_BTD, ctx(), None)[0], *cached

  plain, absorbed, expanded = all_three(params)
  np.testing.assert_allclose(expanded, plain, atol=2e-6, rtol=2e-6)
  np.testing.assert_allclose(absorbed, plain, atol=2e-6, rtol=1e-5)


def test_mla_is_attention_with_low_rank_keys_and_values():
  """Compare with plain attention with the weights W_c W_k of keys and W_c W_v of values.

  The norm is made linear, and nothing is rotated.
  """
  spec = dataclasses.replace(
    SMALL, relative=Relative(), v_dim=12, norm=LayerNorm(eps=1e12, bias=False)
  )
  params, x_BTD = started(spec)
  # LayerNorm with this eps divides by 1e6. Centred columns make the mean that it subtracts 0.
  c_DR = params['c']['kernel']
  params['c']['kernel'] = c_DR - c_DR.mean(1, keepdims=True)
  params['c_norm']['scale'] = jnp.full(16, 1e6)
  k_DNH = jnp.einsum('DR,RNH->DNH', params['c']['kernel'], params['k']['kernel'])
  shared_DNH = jnp.broadcast_to(params['k_rope']['kernel'][:, None], (D, N, 4))
  v_DNH = jnp.einsum('DR,RNH->DNH', params['c']['kernel'], params['v']['kernel'])
  plain = {
    'q': params['q'],
    'k': {'kernel': jnp.concatenate([k_DNH, shared_DNH], -1)},
    'v': {'kernel': v_DNH},
    'o': params['o'],
  }
  latent = spec.make(DIMS).apply({'params': params}, x_BTD, ctx(), None)[0]
  plain_y = Attention(N, head_dim=12).make(DIMS).apply({'params': plain}, x_BTD, ctx(), None)[0]
  np.testing.assert_allclose(latent, plain_y, rtol=1e-4, atol=1e-5)


def test_mla_caches_only_latent_and_shared_key():
  assert SMALL.state(D) == {'k': Slot((1, 16 + 4))}
  assert V3.cache_bytes(7168, 1, jnp.bfloat16) == 2 * 576
  deepseek_v3 = Model(Tokens(129_280), 7168, (Segment((Block(V3),), 61),))
  assert count.cache_bytes_per_token(deepseek_v3, jnp.bfloat16) == 70_272


def test_cached_latent_is_normed_and_shared_key_rotated():
  params, x_BTD = started(SMALL)
  _, cache = SMALL.make(DIMS).apply(
    {'params': params}, x_BTD, ctx(EMPTY), SMALL.init_cache(D, 2, T, 'float32')
  )
  c_BTR, k_BTH = jnp.split(cache['tokens']['arrays']['k'][:, 0], [16], -1)
  np.testing.assert_allclose(
    jnp.mean(c_BTR**2, -1), np.mean(np.square(params['c_norm']['scale'])), rtol=0.3
  )
  raw_BTH = x_BTD @ params['k_rope']['kernel']
  rotated = SMALL.relative.rotate(raw_BTH[:, :, None], ctx().info.positions)[:, :, 0]
  np.testing.assert_allclose(k_BTH, rotated, rtol=1e-5, atol=1e-6)
  assert np.abs(k_BTH - raw_BTH)[:, 1:].max() > 1e-2


def test_steps_are_absorbed_and_long_prompts_are_not():
  assert V3.absorbs(1, 4096)
  assert not V3.absorbs(2048, 4096)
  # Expanding one cached token costs 2 R (nope + v) FLOPs. Absorbed, a pair costs
  # 2 (2 (R + rope) - nope - rope - v) more.
  threshold = next(T for T in range(1, 4096) if not V3.absorbs(T, 10**9))
  assert threshold == -(-512 * 256 // (2 * 576 - 320))


def test_absorbed_steps_after_a_prompt_match_the_full_pass():
  spec = Model(Tokens(61), D, (Segment((Block(SMALL),), 2),))
  params = jax.tree.map(
    lambda a: 8 * a if a.ndim > 2 else a, transformer.init(spec, jax.random.key(0))
  )
  ids = jax.random.randint(jax.random.key(1), (1, 16), 0, 61)
  assert SMALL.absorbs(1, 16)
  assert not SMALL.absorbs(14, 16)

  @jax.jit
  def run(p):
    out = transformer.apply(spec, p, input_ids=ids[:, :14], cache=cache_lib.init_cache(spec, 1, 16))
    logits = [out['logits']]
    for t in (14, 15):
      out = transformer.apply(spec, p, input_ids=ids[:, t : t + 1], cache=out['cache'])
      logits.append(out['logits'])
    return jnp.concatenate(logits, 1), transformer.apply(spec, p, input_ids=ids)['logits']

  stepped, full = run(params)
  np.testing.assert_allclose(stepped, full, atol=2e-5, rtol=1e-5)


def test_mla_flops_match_weights_and_pairs():
  shapes = jax.eval_shape(
    lambda k: V3.make(DIMS.replace(d_model=7168)).init(k, jnp.zeros((2, T, 7168)), ctx(), None),
    jax.random.key(0),
  )['params']
  weights = sum(
    a.size
    for path, a in jax.tree_util.tree_leaves_with_path(nn.unbox(shapes))
    if path[-1].key == 'kernel'
  )
  assert V3.flops(7168, 0) == V3.absorbed_flops(7168, 0) == 2 * weights
  assert V3.flops(7168, 10) - 2 * weights == 2 * 10 * 128 * (192 + 128)
  assert V3.absorbed_flops(7168, 10) - 2 * weights == 2 * 10 * 128 * (576 + 576)


@pytest.mark.parametrize(('mscale', 'expected'), [(0.707, 1.58963), (1.0, 1.87385)])
def test_yarn_with_two_mscales_scales_scores_not_angles(mscale, expected):
  scaling = Yarn(40.0, 4096, mscale=mscale, mscale_all=mscale)
  assert scaling.scale(np.ones(32), 1e4)[1] == 1.0
  assert RoPE(scaling=scaling).score_scale == pytest.approx(expected, rel=1e-5)
  assert (
    RoPE(scaling=Yarn(40.0, 4096)).score_scale == RoPE().score_scale == ALiBi().score_scale == 1.0
  )


def test_given_scale_ignores_score_scale():
  yarn = dataclasses.replace(SMALL, relative=FIELDS['yarn']['relative'])
  params, x_BTD = started(yarn)
  run = lambda spec: np.asarray(spec.make(DIMS).apply({'params': params}, x_BTD, ctx(), None)[0])
  full = 12**-0.5 * yarn.relative.score_scale
  np.testing.assert_allclose(run(dataclasses.replace(yarn, scale=full)), run(yarn), rtol=1e-6)
  assert np.abs(run(dataclasses.replace(yarn, scale=12**-0.5)) - run(yarn)).max() > 1e-3


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'heads': 0}, 'heads=0 is not a size. Expected at least 1'),
    ({'kv_rank': 0}, 'kv_rank=0 is not a size'),
    (
      {'q_rank': 0},
      'q_rank=0 is not a size. Expected at least 1, or none for no latent',
    ),
    ({'bias': 'qv'}, "bias='qv' has unknown letters v. Expected letters of qco"),
  ],
)
def test_sizes_out_of_range_are_errors(fields, message):
  with pytest.raises(errors.ConfigError, match=message):
    config.validate(MLA(**fields))


def test_odd_rope_dim_is_an_error():
  with pytest.raises(
    errors.ConfigError, match=r'pattern\.0\.mixer: relative: 3 of 3 entries of a head cannot be rot'
  ):
    config.validate(
      Model(Tokens(64), 32, (Segment((Block(dataclasses.replace(SMALL, rope_dim=3)),), 1),))
    )
