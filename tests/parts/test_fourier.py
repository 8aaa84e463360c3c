"""The Fourier mixer is the transform of each document."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm.core import config, errors
from tfm.model.spec import Block, Model, Segment
from tfm.model.transformer import apply, init
from tfm.parts.context import Ctx, Dims, Run
from tfm.parts.embed.tokens import Tokens
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.fourier import Fourier
from tfm.parts.residual_layout.pre import Pre
from tfm.parts.tokeninfo import TokenInfo, positions

D = 10


def _mixed(x_BTD, segment_BT):
  info = TokenInfo(positions(segment_BT), segment_BT)
  module = Fourier().make(Dims(D, 1, Normal(), Run()))
  return np.asarray(module.apply({}, x_BTD, Ctx(info))[0])


def _transform(x_TD):
  return np.fft.fft2(x_TD).real


def test_fourier_is_the_real_part_of_the_transform():
  x_BTD = np.random.default_rng(0).standard_normal((2, 97, D)).astype(np.float32)
  y_BTD = _mixed(jnp.asarray(x_BTD), jnp.ones((2, 97), jnp.int32))
  np.testing.assert_allclose(y_BTD[1], _transform(x_BTD[1]), atol=2e-4)


def test_fourier_transforms_packed_documents_separately():
  x_BTD = np.random.default_rng(1).standard_normal((1, 12, D)).astype(np.float32)
  y_BTD = _mixed(jnp.asarray(x_BTD), jnp.asarray([[0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 0, 0]]))
  for own in (slice(2, 7), slice(7, 10)):
    np.testing.assert_allclose(y_BTD[0, own], _transform(x_BTD[0, own]), atol=2e-5)
  assert not y_BTD[0, [0, 1, 10, 11]].any()


def test_fourier_has_no_cache():
  info = TokenInfo(jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1), jnp.int32))
  with pytest.raises(errors.UserError, match='fourier: mixes all tokens of a document'):
    Fourier().make(Dims(D, 1, Normal(), Run())).apply({}, jnp.zeros((1, 1, D)), Ctx(info), {})


def test_bare_branch_has_no_norm():
  spec = Model(Tokens(16), 8, (Segment((Block(residual_layout=Pre(('mixer',))),)),))
  params = init(spec, jax.random.key(0))
  assert set(params['segment_0']['block_0']) == {'mixer', 'ffn', 'ffn_norm'}
  assert np.isfinite(apply(spec, params, input_ids=jnp.ones((1, 3), jnp.int32))['logits']).all()
  with pytest.raises(
    errors.ConfigError,
    match=r'unnormalised: unknown branch mix\. Expected some of mixer, cross, ffn',
  ):
    config.validate(Model(segments=(Segment((Block(residual_layout=Pre(('mix',))),)),)))
