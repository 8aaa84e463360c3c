"""Quantized products equal qwix and keep their formats in compiled programs."""

import dataclasses
import re

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.generate.models import MODELS, weights
from tfm.core import config
from tfm.core.errors import UserError
from tfm.model import transformer
from tfm.model.spec import Block, Segment
from tfm.parts.context import Run
from tfm.parts.ffn import Glu
from tfm.parts.ffn.moe import Moe
from tfm.parts.grouped import grouped_product
from tfm.parts.mixer.attention import Attention
from tfm.parts.quantize import TABLE, products
from tfm.parts.quantize.base import LowPrecision

qwix = pytest.importorskip('qwix')
INT8, FP8, INT4 = (TABLE[name]() for name in ('int8', 'fp8', 'int4'))
ALL_INT8 = dataclasses.replace(INT8, gradients='int8')


def normal(*shape, seed=0):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def distance(x, y):
  return float(jnp.linalg.norm(x - y) / jnp.linalg.norm(y))


def with_gradients(product, x, w):
  """Return x W and the gradients of x and W."""

  @jax.jit
  def both(x, w):
    y, vjp = jax.vjp(product, x, w)
    return y, *vjp(normal(*y.shape, seed=7))

  return both(x, w)


class Layer(nn.Module):
  """A layer for qwix's own interception."""

  @nn.compact
  def __call__(self, x_BD):
    w_DF = self.param('w', nn.initializers.zeros, (256, 5))
    return jax.lax.dot_general(x_BD, w_DF, (((1,), (0,)), ((), ())))


@pytest.mark.filterwarnings('ignore::DeprecationWarning')  # of qwix's interception
@pytest.mark.parametrize(
  'how', [INT8, LowPrecision(tile=128), FP8], ids=['how=int8', 'how=weights', 'how=fp8']
)
def test_product_equals_qwix(how):
  x_BD, w_DF = normal(6, 256), normal(256, 5, seed=1)
  rule = qwix.QtRule(weight_qtype=how.weights, act_qtype=how.inputs, tile_size=how.tile)
  layer = qwix.quantize_model(Layer(), qwix.QtProvider([rule]))
  theirs = with_gradients(lambda x, w: layer.apply({'params': {'w': w}}, x), x_BD, w_DF)
  straight_through = dataclasses.replace(how, gradients=None)
  for mine, their in zip(
    with_gradients(straight_through.contract, x_BD, w_DF), theirs, strict=True
  ):
    np.testing.assert_allclose(mine, their, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
  ('how', 'near'), [(ALL_INT8, 0.02), (FP8, 0.08)], ids=['how=int8', 'how=fp8']
)
def test_quantized_gradients_are_near_exact_ones(how, near):
  x_BTNH, w_NHD = normal(3, 5, 4, 8), normal(4, 8, 24, seed=1)
  exact = with_gradients(lambda x, w: jnp.tensordot(x, w, 2), x_BTNH, w_NHD)
  found = with_gradients(lambda x, w: how.contract(x, w, 2), x_BTNH, w_NHD)
  distances = [distance(mine, their) for mine, their in zip(found, exact, strict=True)]
  assert max(distances) < near
  assert min(distances) > near / 10


@pytest.mark.parametrize(
  ('how', 'near'), [(ALL_INT8, 0.02), (FP8, 0.08)], ids=['how=int8', 'how=fp8']
)
def test_expert_products_are_near_exact_ones(how, near):
  x_ri, w_Eio, sizes_E = normal(10, 16), normal(3, 16, 12, seed=1), jnp.asarray([4, 0, 6])
  exact = with_gradients(lambda x, w: grouped_product(x, w, sizes_E), x_ri, w_Eio)
  found = with_gradients(lambda x, w: how.grouped(x, w, sizes_E), x_ri, w_Eio)
  distances = [distance(mine, their) for mine, their in zip(found, exact, strict=True)]
  assert 0 < distances[0] < near
  assert max(distances) < near


def dots(how, spec):
  """Return the operand formats of all products in the gradient of a model."""
  run, ids = Run(quantize=how), jnp.ones((1, 7), jnp.int32)
  loss = lambda p: jnp.sum(transformer.apply(spec, p, run=run, input_ids=ids)['logits'])
  text = jax.jit(jax.grad(loss)).lower(weights(spec)).as_text()
  operands = r'stablehlo\.dot_general.*: \(tensor<[\dx]*x(\w+)>, tensor<[\dx]*x(\w+)>\)'
  return re.findall(operands, text)


def test_layers_multiply_in_the_formats_of_the_quantization():
  spec = MODELS['rope_gqa']
  n = 6  # q, k, v, o, up, down: the layers are one scanned body
  assert dots(INT8, spec).count(('i8', 'i8')) == n
  assert dots(ALL_INT8, spec).count(('i8', 'i8')) == 3 * n
  found = dots(FP8, spec)
  assert found.count(('f8E4M3FN', 'f8E4M3FN')) == n
  assert found.count(('f8E5M2', 'f8E4M3FN')) == n
  assert found.count(('f8E4M3FN', 'f8E5M2')) == n
  only = dataclasses.replace(INT8, targets=('up', 'k*'), skip=('kv',))
  assert dots(only, spec).count(('i8', 'i8')) == 2


def test_latent_attention_multiplies_in_integers():
  # q_latent, q, c, k_rope, k, v, o, up, down
  assert dots(INT8, MODELS['mla']).count(('i8', 'i8')) == 9


def test_router_and_head_are_not_quantized():
  assert not any(INT8.wraps(role) for role in ('score', 'shared_gate', 'head', 'table'))
  assert INT8.wraps('up')
  assert dataclasses.replace(INT8, skip=()).wraps('head')


def test_mixture_of_experts_trains_quantized():
  block = Block(Attention(4), Moe(expert=Glu(48), experts=4))
  spec = dataclasses.replace(MODELS['rope_gqa'], segments=(Segment((block,), 2),))
  assert dots(INT8, spec).count(('i8', 'i8')) == 4  # q, k, v, o; experts round their operands
  run, ids = Run(quantize=INT8), jnp.arange(7)[None]
  loss = lambda p: jnp.sum(transformer.apply(spec, p, run=run, input_ids=ids)['logits'] ** 2)
  grads = jax.jit(jax.grad(loss))(weights(spec))
  experts = grads['segment_0']['block_0']['ffn']['expert']['up']['kernel']
  assert np.isfinite(experts).all()
  assert np.abs(experts).sum() > 0


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'weights': 'int9'}, 'is unknown. Expected int8, int4'),
    ({'inputs': 'float8_e4m3fn'}, 'mix integers and floats'),
    ({'gradients': 'int8'}, 'needs quantized inputs'),
    ({'tile': 0}, 'Expected at least 1, or none'),
    ({'targets': ()}, 'targets is empty'),
  ],
)
def test_bad_fields_are_refused(fields, message):
  with pytest.raises(UserError, match=message):
    config.validate(LowPrecision(**fields))


def test_tile_that_does_not_divide_the_inputs_is_refused():
  with pytest.raises(UserError, match='tile=5 does not divide 16 inputs'):
    dataclasses.replace(INT8, tile=5).contract(normal(2, 16), normal(16, 3))


def test_missing_qwix_names_the_extra(monkeypatch):
  monkeypatch.setitem(__import__('sys').modules, 'qwix', None)
  with pytest.raises(UserError, match=r'pip install "tfm\[quantize\]"'):
    products.qwix()
