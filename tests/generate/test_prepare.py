"""Parameters laid out for decoding, and in one byte a number, are the model's still."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.generate.models import MODELS, VOCAB, weights
from tfm.core.errors import UserError
from tfm.generate import generate, prepare
from tfm.model import mtp, transformer
from tfm.model.cache import init_cache
from tfm.parts.context import Run
from tfm.parts.head.lm import Lm
from tfm.parts.int8 import Int8, quantize
from tfm.parts.mtp import SequentialMTP

IDS = jnp.asarray([[5, 9, 2, 60, 1, 1, 7]], jnp.int32)
PLAIN = MODELS['learned']


@functools.partial(jax.jit, static_argnums=0)
def logits(spec, params, ids):
  inputs = {} if spec.encoder is None else {'decoder_input_ids': ids}
  return transformer.apply(spec, params, input_ids=ids, **inputs)['logits']


def widened(params):
  """The float parameters that int8 ones stand for, kernels as outputs by inputs."""
  is_int8 = lambda x: isinstance(x, Int8)
  wide = lambda w: w.q * w.scale[:, None] if is_int8(w) else w
  return jax.tree.map(wide, params, is_leaf=is_int8)


@pytest.mark.parametrize('name', ['rope_gqa', 'mla', 'shared', 'encdec'])
@pytest.mark.large(when=lambda name: name in ('shared', 'rope_gqa'))
def test_a_layer_at_a_time_says_what_the_stack_says(name):
  spec = MODELS[name]
  ready = prepare(spec, weights(spec))
  assert isinstance(ready['segment_0'], tuple)
  np.testing.assert_allclose(
    logits(spec, ready, IDS), logits(spec, weights(spec), IDS), rtol=1e-4, atol=1e-4
  )
  options = {'max_new_tokens': 9, 'temperature': 0} | ({'decoder_start': 0} if spec.encoder else {})
  prompts = [[5, 9, 2], [7, 1, 1, 30, 22, 8, 4], [60]]
  assert generate(spec, ready, prompts, **options) == generate(
    spec, weights(spec), prompts, **options
  )


@pytest.mark.parametrize(('shape', 'n_in'), [((16, 5, 3), 1), ((4, 8, 1500), 2), ((1024, 200), 1)])
def test_an_int8_weight_is_within_half_a_step_and_multiplies_as_what_it_stands_for(shape, n_in):
  w = np.random.default_rng(1).normal(size=shape).astype(np.float32)
  q = quantize(jnp.asarray(w), n_in)
  out = shape[n_in:]
  w_oi = w.reshape(-1, int(np.prod(out))).T
  wide_oi = np.asarray(widened(q))
  assert q.q.dtype == jnp.int8
  assert np.all(np.abs(wide_oi - w_oi) <= np.asarray(q.scale)[:, None] * 0.5001)
  x = np.random.default_rng(2).normal(size=(5, 7, *shape[:n_in])).astype(np.float32)
  y = jax.jit(lambda x, q: q.contract(x, n_in))(x, q)
  expected = (x.reshape(35, -1) @ wide_oi.T).reshape(5, 7, *out)
  np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


def test_rows_of_an_int8_table_are_those_it_stands_for():
  table = jnp.asarray(np.random.default_rng(1).normal(size=(700, 24)), jnp.float32)
  q = quantize(table.T, 1)
  index = jnp.asarray([[0, 699], [350, 3]])
  np.testing.assert_allclose(q.rows(index, jnp.float32), widened(q)[index], rtol=1e-6)


@pytest.mark.parametrize('rows', [1, 32, 33])
def test_few_rows_are_rounded_to_two_bytes_a_number_and_many_are_not(rows):
  w = np.random.default_rng(1).normal(size=(300, 40)).astype(np.float32)
  x = np.random.default_rng(2).normal(size=(rows, 300)).astype(np.float32)
  x[0, 7] = 50.0  # one that stands out takes its row's precision, not that of the others
  q = quantize(jnp.asarray(w), 1)
  wide_io = np.asarray(widened(q)).T.astype(np.float64)
  error = np.abs(jax.jit(lambda x, q: q.contract(x))(x, q) - x @ wide_io)
  half_a_step = np.abs(x).max(1, keepdims=True) / 16256 / 2 if rows <= 32 else np.zeros((rows, 1))
  assert (
    error <= half_a_step * np.abs(wide_io).sum(0) + 1e-5 * np.abs(x).max(1, keepdims=True)
  ).all()
  assert not rows <= 32 or error.max() > 1e-4


def test_what_is_no_number_stays_none():
  q = quantize(jnp.ones((4, 3)), 1)
  y = q.contract(jnp.asarray([[1.0, jnp.nan, 1, 1], [1, 1, jnp.inf, 1], [1, 1, 1, 1]]))
  assert not np.isfinite(y[:2]).any()
  np.testing.assert_allclose(y[2], 4, rtol=1e-4)


def test_an_output_of_zeros_stays_zero():
  q = quantize(jnp.zeros((8, 3)), 1)
  assert not np.any(q.contract(jnp.ones((1, 8))))


def test_int8_logits_are_close_and_the_layers_weigh_a_quarter():
  spec = MODELS['learned'].with_heads(lm=Lm(tied=True))
  ready = prepare(spec, weights(spec), int8=True)
  exact, rough = logits(spec, weights(spec), IDS), logits(spec, ready, IDS)
  assert float(jnp.corrcoef(exact.ravel(), rough.ravel())[0, 1]) > 0.99
  assert not np.allclose(exact, rough, rtol=1e-4)
  kernel = ready['segment_0'][1]['block_0']['mixer']['o']['kernel']
  assert isinstance(kernel, Int8)
  assert kernel.q.nbytes == 32 * 32
  assert ready['embed']['table'].out == (VOCAB,)
  assert len(generate(spec, ready, [[1, 2, 3]], max_new_tokens=4)[0]) == 4


@pytest.mark.large
def test_int8_latents_are_asked_by_the_weights_that_int8_keys_are_made_of():
  # Weights with which no activation stands so near the middle of two steps that it is rounded to
  # both.
  spec, plain = MODELS['mla'], weights(MODELS['mla'], seed=3)
  ready = prepare(spec, plain, int8=True)
  for name, out in (('k', (4, 8)), ('v', (4, 12))):
    assert ready['segment_0'][0]['block_0']['mixer'][name]['kernel'].out == out
  ids_BT = IDS[:, :6]

  @jax.jit
  def stepped(params):
    found, cache = [], init_cache(spec, 1, 8)
    for t in range(6):
      out = transformer.apply(
        spec, params, run=Run(loop='unroll'), cache=cache, input_ids=ids_BT[:, t : t + 1]
      )
      found, cache = [*found, out['logits']], out['cache']
    return jnp.concatenate(found, 1)

  # Keys are never made where latents are asked, so activations are not rounded alike.
  np.testing.assert_allclose(stepped(ready), logits(spec, ready, ids_BT), rtol=1e-3, atol=1e-3)
  assert (
    float(jnp.corrcoef(logits(spec, plain, IDS).ravel(), logits(spec, ready, IDS).ravel())[0, 1])
    > 0.99
  )
  assert len(generate(spec, ready, [[1, 2, 3]], max_new_tokens=4)[0]) == 4


def test_a_prepared_model_drafts_what_it_drafted():
  spec = dataclasses.replace(MODELS['mla'], mtp=SequentialMTP())
  plain = weights(spec)

  @jax.jit
  def drafted(params):
    state = transformer.apply(spec, params, input_ids=IDS)['mtp_state']
    return mtp.draft(spec, params, mtp.init_cache(spec, 1, 8), state[:, :-1], IDS[:, 1:])['logits']

  np.testing.assert_allclose(drafted(prepare(spec, plain)), drafted(plain), rtol=1e-4, atol=1e-4)


def test_prepared_parameters_are_not_prepared_again():
  ready = prepare(PLAIN, weights(PLAIN))
  with pytest.raises(
    UserError, match=r'prepare: the parameters are not those of the model. Expected what init'
  ):
    prepare(PLAIN, ready)
