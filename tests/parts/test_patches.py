"""Patches equal a convolution; their positions, special tokens and errors."""

import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm.core import config, errors, serial
from tfm.model import transformer
from tfm.model.spec import Block, Model, Segment
from tfm.parts.context import Dims, Run
from tfm.parts.embed.patches import Patches
from tfm.parts.embed.resize import bicubic, resize_positions
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.head.classify import Classify
from tfm.parts.init.normal import Normal
from tfm.parts.mask.base import Mask
from tfm.parts.mixer.attention import Attention

D = 8


def _start(spec, pixels, params=None, **inputs):
  module = spec.make(Dims(D, 1, Normal(1.0), Run()))
  inputs = {'pixel_values': pixels, **inputs}
  params = (
    nn.unbox(module.init(jax.random.key(0), inputs, {}))['params'] if params is None else params
  )
  return params, module.apply({'params': params}, inputs, {}, None, method='start')


def _model(**fields):
  block = Block(Attention(4, mask=Mask()), Mlp(16))
  embed = dataclasses.replace(Patches(4, 16), **fields)
  return Model(embed, D, (Segment((block,), 2),), heads={'classify': Classify(5)})


@pytest.mark.parametrize('shape', [(2, 3, 8, 12), (2, 1, 4, 16)], ids=['image=8x12', 'image=4x16'])
def test_patches_are_a_strided_convolution(shape):
  spec = Patches(4, shape[2:], shape[1], class_token=False, positions='none')
  x = jax.random.normal(jax.random.key(1), shape)
  params, start = _start(spec, x)
  kernel, strides = params['patches']['kernel'], (4, 4)
  layout = ('NCHW', 'IHWO', 'NHWC')
  expected = jax.lax.conv_general_dilated(x, kernel, strides, 'VALID', dimension_numbers=layout)
  np.testing.assert_allclose(start.x_BTD, expected.reshape(2, -1, D), atol=1e-5)
  assert start.grid == (shape[2] // 4, shape[3] // 4)


def test_video_patches_are_a_strided_convolution():
  spec = Patches((2, 4, 4), (4, 8, 12), class_token=False, positions='none')
  x = jax.random.normal(jax.random.key(1), (2, 4, 3, 8, 12))
  params, start = _start(spec, x)
  layout = ('NDCHW', 'IDHWO', 'NDHWC')
  kernel = params['patches']['kernel']
  expected = jax.lax.conv_general_dilated(x, kernel, (2, 4, 4), 'VALID', dimension_numbers=layout)
  np.testing.assert_allclose(start.x_BTD, expected.reshape(2, -1, D), atol=1e-5)
  time, at = start.info.get('time')[0], start.info.get('grid')[0]
  assert time.tolist() == [0] * 6 + [1] * 6
  assert at.tolist() == 2 * [[i, j] for i in range(2) for j in range(3)]


def test_registers_follow_the_class_token_without_positions():
  spec = Patches(4, 8, distillation_token=True, registers=2)
  params, start = _start(spec, jnp.zeros((1, 3, 8, 8)))
  place = params['positions']
  expected = [
    params['class'] + place[0],
    *params['registers'],
    params['distillation'] + place[1],
    *place[2:],
  ]
  np.testing.assert_allclose(start.x_BTD[0], jnp.stack(expected), atol=1e-6)
  assert start.info.get('grid')[0].tolist() == 4 * [[-1, -1]] + [[0, 0], [0, 1], [1, 0], [1, 1]]
  assert start.info.positions[0].tolist() == list(range(8))
  assert spec.tokens(0) == 8


def test_mask_token_replaces_masked_patches_only():
  spec, x = Patches(4, 8, mask_token=True), jax.random.normal(jax.random.key(1), (1, 3, 8, 8))
  params, plain = _start(spec, x)
  _, masked = _start(spec, x, params, bool_masked_pos=jnp.asarray([[0, 1, 0, 0]], bool))
  same = jnp.all(plain.x_BTD == masked.x_BTD, -1)[0]
  assert same.tolist() == [True, True, False, True, True]
  np.testing.assert_allclose(masked.x_BTD[0, 2], params['mask'] + params['positions'][2], atol=1e-6)


def test_learned_positions_are_resized_to_other_images():
  spec = Patches(4, 16)
  params, start = _start(spec, jnp.zeros((1, 3, 24, 8)))
  expected = resize_positions(params['positions'][1:], (4, 4), (6, 2), 'bicubic')
  np.testing.assert_allclose(start.x_BTD[0, 1:], expected, atol=1e-5)
  # Fixed positions need no interpolation: patches of both grids have the same waves.
  fixed = dataclasses.replace(spec, positions='sincos')
  params, large = _start(fixed, jnp.zeros((1, 3, 24, 24)))
  _, small = _start(fixed, jnp.zeros((1, 3, 24, 8)), params)
  np.testing.assert_allclose(
    large.x_BTD[0, 1:].reshape(6, 6, D)[:, :2].reshape(-1, D), small.x_BTD[0, 1:], atol=1e-6
  )


def test_bicubic_weights_equal_torch():
  # Weights halfway between two points with a = -3/4. The tap beyond the edge uses the edge.
  half = [0.5, 0.59375, -0.09375, 0]
  np.testing.assert_allclose(bicubic(4, 2), [half, half[::-1]], atol=1e-6)
  np.testing.assert_allclose(bicubic(5, 5), np.eye(5), atol=1e-6)
  np.testing.assert_allclose(bicubic(14, 9).sum(1), 1, atol=1e-6)


ERRORS = {
  'channels': (jnp.zeros((1, 1, 16, 16)), r'shape \(1, 1, 16, 16\)\. Expected \[B, C=3, H, W\]'),
  'axes': (jnp.zeros((3, 16, 16)), r'shape \(3, 16, 16\)'),
  'size': (jnp.zeros((1, 3, 16, 18)), r'16 x 18 is not divisible into patches of 4 x 4'),
  'nan': (jnp.full((1, 3, 16, 16), jnp.nan), 'NaN'),
  'dtype': (jnp.zeros((1, 3, 16, 16), jnp.uint8), 'uint8'),
  'resize': (jnp.zeros((1, 3, 20, 16)), r'20 x 16, and the position table is for 16 x 16'),
}


@pytest.mark.parametrize('name', ERRORS)
def test_wrong_images_are_errors(name):
  model, (pixels, message) = _model(resize=None), ERRORS[name]
  params = transformer.init(model, jax.random.key(0))
  with pytest.raises(errors.UserError, match=f'^apply: pixel_values.*{message}'):
    transformer.apply(model, params, pixel_values=pixels)


def test_patch_masks_without_a_mask_token_are_errors():
  model = _model()
  params = transformer.init(model, jax.random.key(0))
  with pytest.raises(errors.UserError, match='no mask token'):
    transformer.apply(
      model,
      params,
      pixel_values=jnp.zeros((1, 3, 16, 16)),
      bool_masked_pos=jnp.zeros((1, 16), bool),
    )


@pytest.mark.parametrize(
  'fields', [{'size': 5}, {'registers': 1, 'class_token': False}, {'size': (2, 4, 4)}]
)
def test_inconsistent_patch_fields_are_errors(fields):
  with pytest.raises(errors.ConfigError, match='embed'):
    config.validate(_model(**fields))


def test_image_model_runs_and_survives_json():
  model = _model(registers=1, mask_token=True)
  config.validate(model)
  assert serial.from_json(Model, serial.to_json(model)) == model
  params = transformer.init(model, jax.random.key(0))
  out = transformer.apply(model, params, pixel_values=jnp.ones((2, 3, 16, 24)))
  assert out['logits'].shape == (2, 5)
  assert out['last_hidden_state'].shape == (2, 26, D)
