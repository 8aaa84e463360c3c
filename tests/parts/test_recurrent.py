"""Recurrent mixers equal their definitions, in chunks, steps and packed documents."""

import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parts import recurrences
from tfm.core import config, errors
from tfm.model import count
from tfm.model.spec import Block, Model, Segment
from tfm.parts import recurrent
from tfm.parts.context import Ctx, Dims, Run
from tfm.parts.embed import Tokens
from tfm.parts.ffn import Mlp
from tfm.parts.init import Normal
from tfm.parts.mixer import (
  RGLRU,
  Attention,
  GatedConv,
  GatedDelta,
  Lightning,
  Mamba,
  Mamba2,
  Sum,
  lightning,
)
from tfm.parts.norm import RMSNorm
from tfm.parts.tokeninfo import TokenInfo, positions

D, B, T = 12, 3, 150
SPECS = {
  'gated_delta': GatedDelta(4, 2, 5, 6),
  'mamba': Mamba(10, 3, 2, norm=RMSNorm(), bias=True),
  'mamba2': Mamba2(4, 6, 5, 2, norm_groups=2, limits=(0.05, 0.8)),
  'rglru': RGLRU(16, 4),
  'gated_conv': GatedConv(3, bias=True),
  'lightning': Lightning(4, 5),
}
DIMS = Dims(D, 1, Normal(), Run())
_rng = np.random.default_rng(0)
X_BTD = _rng.standard_normal((B, T, D)).astype(np.float32)
# Documents end inside and at the ends of chunks of 64 tokens; padding is on both sides, between and
# within documents.
PACKED = np.asarray(
  [
    [1] * 30 + [2] * 34 + [3] * 86,
    [0] * 70 + [1] * 20 + [0] * 20 + [1] * 30 + [0] * 10,
    [1] * 2 + [0] * 63 + [2] * 84 + [3],
  ],
  np.int32,
)
CLOSE = {'rtol': 1e-4, 'atol': 2e-5}


def info(segment_BT):
  return TokenInfo(positions(jnp.asarray(segment_BT)), jnp.asarray(segment_BT))


@functools.cache
def params(name):
  shapes = jax.eval_shape(
    lambda: (
      SPECS[name]
      .make(DIMS)
      .init(jax.random.key(0), jnp.asarray(X_BTD), Ctx(info(PACKED)))['params']
    )
  )
  rng = np.random.default_rng(1)
  return jax.tree.map(
    lambda a: jnp.asarray(0.4 * rng.standard_normal(a.shape), jnp.float32), nn.unbox(shapes)
  )


def mixed(name, p, x_BTD, segment_BT, cache=None):
  slot = None if cache is None else jnp.zeros(len(x_BTD), jnp.int32)
  return SPECS[name].make(DIMS).apply({'params': p}, x_BTD, Ctx(info(segment_BT), slot=slot), cache)


@functools.cache
def defined(name):
  """Return the output of the definition for every document, 0 at padding."""
  p = jax.tree.map(lambda a: np.asarray(a, np.float64), params(name))
  outputs = np.zeros((B, T, D))
  for row in range(B):
    for number in {*PACKED[row]} - {0}:
      at = PACKED[row] == number
      outputs[row, at] = getattr(recurrences, name)(
        SPECS[name], p, X_BTD[row, at].astype(np.float64)
      )
  return outputs


@pytest.mark.parametrize('name', SPECS)
def test_packed_and_padded_documents_equal_the_definition(name):
  outputs = jax.jit(lambda p, x: mixed(name, p, x, PACKED)[0])(params(name), X_BTD)
  assert np.isfinite(outputs).all()
  np.testing.assert_allclose(np.asarray(outputs)[PACKED > 0], defined(name)[PACKED > 0], **CLOSE)


@pytest.mark.parametrize('name', SPECS)
def test_state_continues_a_sequence_after_any_cut(name):
  cuts, outputs = [1, 2, 65, 70, 75, 149], []
  cache = SPECS[name].init_cache(D, B, T, 'float32')
  for x_BTD, segments in zip(np.split(X_BTD, cuts, 1), np.split(PACKED, cuts, 1), strict=True):
    y_BTD, cache = jax.jit(lambda p, x, c, s=segments: mixed(name, p, x, s, c))(
      params(name), x_BTD, cache
    )
    outputs.append(y_BTD)
  np.testing.assert_allclose(
    np.concatenate(outputs, 1)[PACKED > 0], defined(name)[PACKED > 0], **CLOSE
  )


@pytest.mark.parametrize('name', SPECS)
def test_history_is_the_state_after_each_token(name):
  run = jax.jit(lambda p, x, c, s: mixed(name, p, x, s, c)[1])
  start = run(
    params(name), X_BTD[:, :40], SPECS[name].init_cache(D, B, T, 'float32'), PACKED[:, :40]
  )
  after = run(params(name), X_BTD[:, 60:68], start | {'history': {}}, PACKED[:, 60:68])
  cache = start
  for t in range(8):
    for slot, a in cache['rows'].items():
      np.testing.assert_allclose(after['history']['rows'][slot][:, t], a, rtol=1e-4, atol=1e-5)
    cache = run(params(name), X_BTD[:, 60 + t : 61 + t], cache, PACKED[:, 60 + t : 61 + t])
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    after['rows'],
    cache['rows'],
  )


@pytest.mark.parametrize('name', [name for name in SPECS if name != 'gated_conv'])
def test_chunked_gradients_match_one_large_chunk(name, monkeypatch):
  target = jnp.asarray(
    np.random.default_rng(2).standard_normal(X_BTD.shape) * (PACKED > 0)[..., None], jnp.float32
  )
  grad = lambda: jax.jit(jax.grad(lambda p: jnp.sum(mixed(name, p, X_BTD, PACKED)[0] * target)))(
    params(name)
  )
  chunked = grad()
  monkeypatch.setattr(recurrent, 'CHUNK', T)
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4 * np.abs(b).max())
  jax.tree.map(close, chunked, grad())


def test_decay_slows_with_depth_of_the_layer():
  """The rates of lightning attention: halves of halves over heads, nothing at the last layer."""
  found = np.stack([lightning.rates(4, layer, 5) for layer in range(5)])
  np.testing.assert_allclose(found[0], [1 / 4, 1 / 16, 1 / 64, 1 / 256], rtol=2e-5)
  np.testing.assert_allclose(
    found / found[0], np.repeat([[1, 0.75, 0.5, 0.25, 0]], 4, 0).T, atol=2e-5
  )


@pytest.mark.parametrize('name', SPECS)
def test_state_and_flops_are_constant_in_length(name):
  s = SPECS[name]
  spec = Model(Tokens(32), D, (Segment((Block(s, Mlp(8)),), 2),))
  sizes = sum(int(np.prod(slot.shape)) for slot in s.state(D).values())
  assert count.state_bytes(spec) == 2 * 4 * sizes
  assert s.flops(D, s.pairs(10)) == s.flops(D, s.pairs(10_000)) > 0


@pytest.mark.parametrize(
  ('mixer', 'message'),
  [
    (GatedDelta(conv=0), r'conv=0 is not a size\. Expected at least 1'),
    (GatedDelta(3, 2), r'heads=3 is not a multiple of key_heads=2\. Expected a divisor of heads'),
    (Mamba(rank=0), r'rank=0 is not a size\. Expected at least 1'),
    (Mamba2(heads=0), r'heads=0 is not a size\. Expected at least 1'),
    (
      Mamba2(3, key_heads=2),
      r'heads=3 is not a multiple of key_heads=2\. Expected a divisor of heads',
    ),
    (Mamba2(2, 3, norm_groups=4), r'norm_groups=4 does not divide 6 channels\. Expected a divisor'),
    (
      Mamba2(limits=(1.0, 0.5)),
      r'limits=\(1\.0, 0\.5\) are not in order\. Expected the minimum first',
    ),
    (RGLRU(conv=0), r'conv=0 is not a size\. Expected at least 1'),
    (RGLRU(10, 4), r'heads=4 does not divide width=10\. Expected a divisor'),
    (Lightning(0), r'heads=0 is not a number of heads\. Expected at least 1'),
    (Lightning(2, 0), r'head_dim=0 is not a size\. Expected at least 1, or none'),
    (Lightning(5), r'heads=5 does not divide d_model=12\. Expected a divisor, or head_dim'),
    (GatedConv(0), r'size=0 is not a number of tokens\. Expected at least 1'),
    (
      Sum(Mamba2(), Mamba2()),
      r'left=mamba2 has state per sequence\. Expected attention on the left',
    ),
    (
      Sum(Attention(2), Attention(2)),
      r'right=attention has state per token\. Expected attention on the left',
    ),
    (Sum(Attention(5)), r'left: heads=5 does not divide d_model=12'),
  ],
)
def test_fields_out_of_range_are_errors(mixer, message):
  with pytest.raises(errors.ConfigError, match=message):
    config.validate(Model(Tokens(32), D, (Segment((Block(mixer, Mlp(8)),)),)))
