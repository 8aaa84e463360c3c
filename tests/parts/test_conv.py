"""The convolution mixer, alone and as the extra branch of a block."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm.core import config, errors
from tfm.generate.prompts import decoding_problems
from tfm.model import cache, count, transformer
from tfm.model.spec import Block, Model, Segment
from tfm.parts.context import Ctx, Dims, Run
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn import Glu
from tfm.parts.init import Normal
from tfm.parts.mask import Mask
from tfm.parts.mixer import Attention, Conv
from tfm.parts.residual_layout import Post
from tfm.parts.tokeninfo import TokenInfo, positions

D = 6
SEGMENT_BT = np.asarray([[0, 1, 1, 1, 2, 3, 3, 0], [1, 1, 1, 1, 1, 1, 1, 1]], np.int32)
BLOCK = Block(
  Attention(2, head_dim=4, mask=Mask()), Glu(12), residual_layout=Post(), extra_branch=Conv()
)
MODEL = Model(
  Tokens(32), 8, (Segment((BLOCK,)), Segment((dataclasses.replace(BLOCK, extra_branch=None),), 2))
)


def _mixed(conv, params, x_BTD, train=False):
  info = TokenInfo(positions(jnp.asarray(SEGMENT_BT)), jnp.asarray(SEGMENT_BT))
  module = conv.make(Dims(D, 1, Normal(), Run()))
  return np.asarray(
    module.apply(params, x_BTD, Ctx(info, train=train), rngs={'dropout': jax.random.key(0)})[0]
  )


def _params(conv):
  rng = np.random.default_rng(0)
  shapes = {'kernel': (D // conv.groups, conv.size, D), 'bias': (D,)}
  return {
    'params': {
      name: jnp.asarray(rng.standard_normal(shape), jnp.float32) for name, shape in shapes.items()
    }
  }


@pytest.mark.parametrize(('size', 'groups'), [(3, 1), (5, 2), (1, 3)])
def test_conv_sums_neighbours_of_the_same_document(size, groups):
  conv = Conv(size, groups)
  params, width = _params(conv), D // groups
  x_BTD = np.random.default_rng(1).standard_normal((2, 8, D)).astype(np.float32)
  kernel, bias = np.asarray(params['params']['kernel']), np.asarray(params['params']['bias'])
  expected = np.tile(bias, (2, 8, 1))
  for b, t, p, o in np.ndindex(2, 8, size, D):
    s, first = t + p - size // 2, o // width * width
    if 0 <= s < 8 and SEGMENT_BT[b, s] == SEGMENT_BT[b, t] > 0:
      expected[b, t, o] += x_BTD[b, s, first : first + width] @ kernel[:, p, o]
  np.testing.assert_allclose(_mixed(conv, params, x_BTD), np.tanh(expected), atol=1e-5)


def test_conv_dropout_is_before_the_activation():
  # Small inputs: tanh of a large one is exactly 1 and cannot be inverted.
  conv, x_BTD = Conv(dropout=0.5), jnp.full((2, 8, D), 0.25)
  params = _params(conv)
  whole = _mixed(conv, params, x_BTD)
  np.testing.assert_array_equal(whole, _mixed(Conv(), params, x_BTD, train=True))
  dropped = _mixed(conv, params, x_BTD, train=True)
  kept = dropped != 0
  assert 0.3 < kept.mean() < 0.7
  np.testing.assert_allclose(
    dropped[kept], np.tanh(2 * np.arctanh(whole[kept].astype(np.float64))), atol=1e-4
  )


def test_extra_branch_takes_the_block_input():
  config.validate(MODEL)
  params = transformer.init(MODEL, jax.random.key(0))
  assert set(params['segment_0']['block_0']) - set(params['segment_1']['block_0']) == {
    'aside',
    'aside_norm',
  }
  out = transformer.apply(
    MODEL, params, input_ids=jnp.asarray([[3, 4, 5]]), output_hidden_states=True
  )
  entered, after = out['hidden_states'][:2]
  plain = dataclasses.replace(MODEL, segments=(dataclasses.replace(MODEL.segments[1], repeats=1),))
  rest = {name: p for name, p in params.items() if not name.startswith('segment_')}
  own = {'segment_0': params['segment_0']}
  beneath = transformer.apply(plain, rest | own, input_ids=jnp.asarray([[3, 4, 5]]))[
    'last_hidden_state'
  ]
  own = jax.tree.map(lambda a: a[0], params['segment_0']['block_0']['aside'])
  info = TokenInfo(jnp.arange(3)[None], jnp.ones((1, 3), jnp.int32))
  extra_branch = (
    Conv().make(Dims(8, 1, Normal(), Run())).apply({'params': own}, entered, Ctx(info))[0]
  )
  x = np.asarray(beneath + extra_branch)
  np.testing.assert_allclose(after, x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6), atol=1e-5)


def test_conv_flops_and_layer_table():
  bare = dataclasses.replace(
    MODEL, segments=(Segment((dataclasses.replace(BLOCK, extra_branch=None),)), MODEL.segments[1])
  )
  assert count.flops_per_token(MODEL, 5) - count.flops_per_token(bare, 5) == 2 * 3 * 8 * 8
  assert count.count_params(MODEL) - count.count_params(bare) == 3 * 8 * 8 + 8 + 8
  assert [
    row.parts.get('extra_branch') for row in count.table(MODEL, 5) if 'mixer' in row.parts
  ] == ['conv', None]


def test_conv_has_no_cache_and_cannot_generate():
  causal = dataclasses.replace(BLOCK, mixer=Attention(2, head_dim=4))
  spec = dataclasses.replace(MODEL, segments=(Segment((causal,)),))
  assert not spec.causal
  assert spec.ahead
  assert not spec.masked
  assert list(decoding_problems(spec))
  params, kept = transformer.init(spec, jax.random.key(0)), cache.init_cache(spec, 1, 4)
  with pytest.raises(
    errors.UserError,
    match=r'conv: depends on later tokens\. Expected an encoder',
  ):
    transformer.apply(spec, params, input_ids=jnp.ones((1, 2), jnp.int32), cache=kept)


@pytest.mark.parametrize(('fields', 'message'), [
  ({'extra_branch': Conv(4)}, r'size=4 has no middle\. Expected an odd number of tokens'),
  ({'extra_branch': Conv(groups=0)}, r'groups=0 is not a number of groups\. Expected at least 1'),
  ({'extra_branch': Conv(groups=3)}, r'extra_branch: groups=3 does not divide d_model=8'),
  ({'extra_branch': Conv(dropout=1.0)}, r'dropout=1\.0 is not a rate'),
  ({'extra_branch': Attention(2, head_dim=4)},
   r'extra_branch: needs a cache, which extra branches do not have\. Expected conv or four'),
  ({'extra_branch': Conv(), 'residual_layout': Block().residual_layout},
   r'extra_branch needs a layout that normalises after .* Expected residual_layout=post'),
])  # fmt: skip
def test_what_cannot_be_is_refused(fields, message):
  with pytest.raises(errors.ConfigError, match=message):
    config.validate(
      dataclasses.replace(MODEL, segments=(Segment((dataclasses.replace(BLOCK, **fields),)),))
    )
