"""Prepared parameters give the same outputs, and int8 ones nearly the same."""

import dataclasses
import functools
import re

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from tests.generate.models import MODELS, VOCAB, weights
from tfm.core.errors import UserError
from tfm.generate import generate, prepare
from tfm.model import mtp, transformer
from tfm.model.cache import init_cache
from tfm.parts.context import Run
from tfm.parts.cpu import int8 as cpu_int8
from tfm.parts.head.lm import Lm
from tfm.parts.int8 import Int8, quantize
from tfm.parts.mtp import SequentialMTP
from tfm.parts.stored import Rows

IDS = jnp.asarray([[5, 9, 2, 60, 1, 1, 7]], jnp.int32)
PLAIN = MODELS['learned']


@functools.partial(jax.jit, static_argnums=0)
def logits(spec, params, ids):
  inputs = {} if spec.encoder is None else {'decoder_input_ids': ids}
  return transformer.apply(spec, params, input_ids=ids, **inputs)['logits']


def dequantized(params):
  """Return parameters with int8 weights dequantized, kernels as outputs by inputs."""
  is_int8 = lambda x: isinstance(x, Int8)
  dequantize = lambda w: w.q * w.scale[:, None] if is_int8(w) else w
  return jax.tree.map(dequantize, params, is_leaf=is_int8)


@pytest.mark.parametrize('name', ['rope_gqa', 'mla', 'shared', 'encdec'])
@pytest.mark.large(when=lambda name: name in ('shared', 'rope_gqa'))
def test_prepared_parameters_give_the_same_outputs(name):
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
def test_int8_weight_is_rounded_and_multiplies_as_dequantized(shape, n_in, monkeypatch):
  monkeypatch.setattr(cpu_int8, '_has_int8_tiles', lambda: False)
  w = np.random.default_rng(1).normal(size=shape).astype(np.float32)
  q = quantize(jnp.asarray(w), n_in)
  out = shape[n_in:]
  w_oi = w.reshape(-1, int(np.prod(out))).T
  wide_oi = np.asarray(dequantized(q))
  assert q.q.dtype == jnp.int8
  assert np.all(np.abs(wide_oi - w_oi) <= np.asarray(q.scale)[:, None] * 0.5001)
  x = np.random.default_rng(2).normal(size=(5, 7, *shape[:n_in])).astype(np.float32)
  y = jax.jit(lambda x, q: q.contract(x, n_in))(x, q)
  expected = (x.reshape(35, -1) @ wide_oi.T).reshape(5, 7, *out)
  np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


def test_int8_table_rows_equal_dequantized_rows():
  table = jnp.asarray(np.random.default_rng(1).normal(size=(700, 24)), jnp.float32)
  q = quantize(table.T, 1)
  index = jnp.asarray([[0, 699], [350, 3]])
  np.testing.assert_allclose(q.rows(index, jnp.float32), dequantized(q)[index], rtol=1e-6)


@pytest.mark.parametrize(('rows', 'tiles'), [(1, False), (32, False), (33, False), (34, True)])
def test_int8_activations_are_rounded_to_15_bits(rows, tiles, monkeypatch):
  monkeypatch.setattr(cpu_int8, '_has_int8_tiles', lambda: tiles)
  w = np.random.default_rng(1).normal(size=(300, 40)).astype(np.float32)
  x = np.random.default_rng(2).normal(size=(rows, 300)).astype(np.float32)
  x[0, 7] = 50.0  # an outlier reduces the precision of its row only
  q = quantize(jnp.asarray(w), 1)
  wide_io = np.asarray(dequantized(q)).T.astype(np.float64)
  error = np.abs(jax.jit(lambda x, q: q.contract(x))(x, q) - x @ wide_io)
  rounded = rows <= 32 or tiles
  half_a_step = np.abs(x).max(1, keepdims=True) / 16256 / 2 if rounded else np.zeros((rows, 1))
  assert (
    error <= half_a_step * np.abs(wide_io).sum(0) + 1e-5 * np.abs(x).max(1, keepdims=True)
  ).all()
  assert (error.max() > 1e-4) == rounded


@pytest.mark.skipif(jax.default_backend() != 'cpu', reason='compiles for the CPU')
@pytest.mark.parametrize('int8', [False, True])
def test_weight_is_the_left_operand_of_small_batches(int8):
  w = jnp.ones((96, 80))
  stored = quantize(w, 1) if int8 else Rows.of(w, 1)
  contract = jax.jit(lambda w, x: w.contract(x)[:, None])
  text = contract.lower(stored, jnp.ones((4, 96))).compile().as_text()
  columns = 8 if int8 else 4
  assert re.search(rf'\[80,{columns}\]\S* dot\(', text)
  assert not re.search(rf'\[{columns},80\]\S* dot\(', text)


@pytest.mark.parametrize('tiles', [False, True])
def test_prepared_weights_export_with_any_number_of_rows(tiles, monkeypatch):
  monkeypatch.setattr(cpu_int8, '_has_int8_tiles', lambda: tiles)
  rows = jax.export.symbolic_shape('b')[0]
  x = jax.ShapeDtypeStruct((rows, 96), jnp.float32)
  for w in (quantize(jnp.ones((96, 80)), 1), Rows.of(jnp.ones((96, 80)), 1)):
    exported = jax.export.export(jax.jit(w.contract))(x)
    np.testing.assert_allclose(exported.call(jnp.ones((3, 96))), 96, rtol=1e-4)


def test_nan_and_inf_propagate_through_int8():
  q = quantize(jnp.ones((4, 3)), 1)
  y = q.contract(jnp.asarray([[1.0, jnp.nan, 1, 1], [1, 1, jnp.inf, 1], [1, 1, 1, 1]]))
  assert not np.isfinite(y[:2]).any()
  np.testing.assert_allclose(y[2], 4, rtol=1e-4)


def test_zero_int8_output_stays_zero():
  q = quantize(jnp.zeros((8, 3)), 1)
  assert not np.any(q.contract(jnp.ones((1, 8))))


def test_int8_logits_are_close_at_a_quarter_of_the_size():
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
def test_int8_mla_decodes_with_the_key_weights():
  # With these weights no activation is so close to a rounding boundary that results differ.
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

  # Decoding attends to latents without computing keys, so activations are rounded differently.
  np.testing.assert_allclose(stepped(ready), logits(spec, ready, ids_BT), rtol=1e-3, atol=1e-3)
  assert (
    float(jnp.corrcoef(logits(spec, plain, IDS).ravel(), logits(spec, ready, IDS).ravel())[0, 1])
    > 0.99
  )
  assert len(generate(spec, ready, [[1, 2, 3]], max_new_tokens=4)[0]) == 4


def test_prepared_mtp_layers_draft_the_same():
  spec = dataclasses.replace(MODELS['mla'], mtp=SequentialMTP())
  plain = weights(spec)

  @jax.jit
  def drafted(params):
    state = transformer.apply(spec, params, input_ids=IDS)['mtp_state']
    return mtp.draft(spec, params, mtp.init_cache(spec, 1, 8), state[:, :-1], IDS[:, 1:])['logits']

  np.testing.assert_allclose(drafted(prepare(spec, plain)), drafted(plain), rtol=1e-4, atol=1e-4)


def test_preparing_twice_is_an_error():
  ready = prepare(PLAIN, weights(PLAIN))
  with pytest.raises(
    UserError, match=r'prepare: params do not have the structure of the model. Expected the result'
  ):
    prepare(PLAIN, ready)
