"""Hierarchical attention: exact blocks, means of earlier blocks, and decoding."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.contracts.cases import decoder
from tfm.core import config, errors
from tfm.model import cache
from tfm.model.spec import Block
from tfm.model.transformer import apply, init
from tfm.parts.attend import Blockwise, DenseAttention, Pallas
from tfm.parts.attend.base import Scores
from tfm.parts.context import Ctx, Dims, Run
from tfm.parts.ffn import Glu
from tfm.parts.init import Normal
from tfm.parts.mask import Fixed, Mask
from tfm.parts.mixer import Attention, Hierarchical
from tfm.parts.relative import RoPE
from tfm.parts.tokeninfo import TokenInfo

D = 16


def made(spec, run=Run()):
  return spec.make(Dims(D, 1, Normal(), run))


@pytest.mark.parametrize(
  ('n', 'b', 'own', 'earlier'), [(16, 4, 40, 24), (1024, 32, 16_896, 15_872), (11, 4, 26, 10)]
)
def test_hierarchical_pair_count(n, b, own, earlier):
  assert Hierarchical(block=b).pairs(n) * n == own + earlier
  assert Fixed(b, 1, 'local').pairs(n) == own
  info = TokenInfo(jnp.arange(n)[None], jnp.ones((1, n), jnp.int32))
  spec = Hierarchical(1, block=b)
  keys = jax.jit(made(spec).expand_keys)(*[jnp.zeros((1, n, 1, 1))] * 2, info)[2]
  assert jax.jit(spec.effective_mask)(info.rows(), keys.columns()).sum() == own + earlier


def test_one_block_document_has_plain_attention():
  x_BTD = jax.random.normal(jax.random.key(0), (2, 9, D))
  ctx = Ctx(TokenInfo(jnp.tile(jnp.arange(9), (2, 1)), jnp.ones((2, 9), jnp.int32)))
  plain, whole = made(Attention(4, 2, mask=Mask())), made(Hierarchical(4, 2, mask=Mask(), block=9))
  params = jax.jit(plain.init)(jax.random.key(1), x_BTD, ctx)
  y, expected = (jax.jit(module.apply)(params, x_BTD, ctx)[0] for module in (whole, plain))
  np.testing.assert_allclose(y, expected, atol=1e-6)
  assert Hierarchical(mask=Mask(), block=9).pairs(9) == 9


def test_earlier_blocks_are_means_in_any_token_order():
  rng, b, S = np.random.default_rng(0), 3, 14
  pos, segment = np.r_[np.arange(8), np.arange(5), 0], np.r_[[1] * 8, [2] * 5, 0]
  q, k, v = rng.standard_normal((3, 1, S, 1, 4)).astype(np.float32)
  order = rng.permutation(S)
  spec = Hierarchical(1, 1, 4, block=b)
  info = lambda at: TokenInfo(jnp.asarray(pos[at])[None], jnp.asarray(segment[at])[None])
  *keys, k_info = jax.jit(made(spec).expand_keys)(
    *(jnp.asarray(a[:, order]) for a in (k, v)), info(order)
  )
  y = DenseAttention()(
    jnp.asarray(q), *keys, info(np.arange(S)), k_info, Scores(0.5, spec.effective_mask), 'float32'
  )

  def by_hand(t):
    of = lambda i: (segment == segment[t]) & (pos // b == i)
    own, blocks = of(pos[t] // b) & (pos <= pos[t]), [of(i) for i in range(pos[t] // b)]
    met = lambda a: np.concatenate(
      [a[0, own, 0], *(a[0, one, 0].mean(0, keepdims=True) for one in blocks)]
    )
    e = np.exp(0.5 * met(k) @ q[0, t, 0])
    return e @ met(v) / e.sum()

  np.testing.assert_allclose(y[0, :-1, 0], [by_hand(t) for t in range(S - 1)], atol=1e-5)
  assert not np.any(y[0, -1])


SPEC = decoder(Block(Hierarchical(4, 2, 8, RoPE(), block=4), Glu(48)))
IDS = np.random.default_rng(0).integers(0, SPEC.vocab, (3, 14)).astype(np.int32)
IDS[1] = IDS[0]
IDS[1, 6] += 1
IDS[2, 5:] = IDS[0, :9]
SEGMENT = np.ones_like(IDS)
SEGMENT[2, 5:] = 2


@pytest.fixture(scope='module')
def params():
  return jax.jit(lambda: init(SPEC, jax.random.key(0)))()


@pytest.fixture(scope='module')
def rows(params):
  """Return logits of three sequences, by kernel.

  They are a document, the same with another token 6, and its beginning after a document of 5
  tokens.
  """
  kernels = (DenseAttention(), Blockwise(4, 4), Pallas(4, 4, interpret=True))
  run = lambda p, k: apply(SPEC, p, run=Run(attend=k), input_ids=IDS, segment_ids=SEGMENT)['logits']
  return jax.jit(lambda p: [run(p, k) for k in kernels])(params)


def test_kernels_match(rows):
  for y in rows[1:]:
    np.testing.assert_allclose(y, rows[0], atol=2e-5)


def test_blocks_start_at_documents_and_stay_causal(rows):
  one, other, packed = rows[0]
  np.testing.assert_array_equal(one[:6], other[:6])
  assert (np.abs(one[6:] - other[6:]).max(-1) > 1e-6).all()
  np.testing.assert_allclose(packed[5:], one[:9], atol=1e-5)


def test_cached_decoding_matches_the_full_pass(params, rows):
  @jax.jit
  def stepped(p):
    out = apply(SPEC, p, cache=cache.init_cache(SPEC, 2, 14), input_ids=IDS[:2, :5])

    def step(kept, token_B):
      out = apply(SPEC, p, cache=kept, input_ids=token_B[:, None])
      return out['cache'], out['logits'][:, 0]

    return jnp.concatenate(
      [out['logits'], jax.lax.scan(step, out['cache'], IDS[:2, 5:].T)[1].swapaxes(0, 1)], 1
    )

  np.testing.assert_allclose(stepped(params), rows[0][:2], atol=1e-5)


def test_empty_blocks_are_errors():
  with pytest.raises(
    errors.ConfigError, match=r'block=0 is not a block size. Expected at least 1 token'
  ):
    config.validate(dataclasses.replace(Hierarchical(), block=0))
