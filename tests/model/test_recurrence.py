"""Chunks give the outputs and gradient of whole sequences; detached gradients stop at borders."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.generate.models import decoder, weights
from tfm.core.errors import UserError
from tfm.model import transformer
from tfm.model.cache import init_cache
from tfm.model.recurrence import scan_chunks
from tfm.model.spec import Segment
from tfm.parts.cache import DenseCache, RingCache
from tfm.parts.context import Run
from tfm.parts.mask import Window
from tfm.parts.mixer import LSTM, Attention, LinearAttention
from tfm.parts.relative import RoPE
from tfm.parts.tokeninfo import positions

T = 14
IDS = np.random.default_rng(0).integers(1, 61, (3, T)).astype(np.int32)
PACKED = np.asarray([[1] * 5 + [2] * 9, [1] * 2 + [2] * 6 + [3] * 6, [1] * 12 + [0] * 2], np.int32)

LINEAR, RECURRENT = decoder(LinearAttention(4)), decoder(LSTM(24, True))
CAUSAL = decoder(Attention(4, 2, 8, RoPE(base=100.0)))
WINDOW = decoder(Attention(4, 2, 8, RoPE(base=100.0), Window(4)))
HYBRID = dataclasses.replace(
  CAUSAL, segments=(Segment((*LINEAR.segments[0].pattern, *WINDOW.segments[0].pattern)),)
)
MODELS = {
  'linear': (LINEAR, DenseCache()),
  'lstm': (RECURRENT, DenseCache()),
  'causal': (CAUSAL, DenseCache()),
  'hybrid': (HYBRID, RingCache(2)),
}


def chunked(spec, params, kind, chunk, detach=True, **inputs):
  run = Run(cache=kind)
  apply_fn = functools.partial(transformer.apply, spec, params, run=run)
  return scan_chunks(apply_fn, inputs, chunk, init_cache(spec, 3, 16, kind=kind), detach)


@pytest.mark.parametrize('packed', [False, True])
@pytest.mark.parametrize('name', MODELS)
def test_chunks_give_the_outputs_of_whole_sequences(name, packed):
  spec, kind = MODELS[name]
  inputs = {'input_ids': IDS} | ({'segment_ids': PACKED} if packed else {})
  real = PACKED > 0 if packed else np.ones_like(IDS, bool)
  whole = jax.jit(lambda p: transformer.apply(spec, p, **inputs)['logits'])(weights(spec))
  for chunk in (4, T + 1):
    out = jax.jit(lambda p, chunk=chunk: chunked(spec, p, kind, chunk, **inputs))(weights(spec))
    np.testing.assert_allclose(out['logits'][real], whole[real], rtol=1e-4, atol=1e-4)
    assert out['cache']['slot'].tolist() == real.sum(1).tolist()


def gradients(spec, kind, chunk, detach):
  target = jax.random.normal(jax.random.key(1), (3, T, spec.vocab))

  @jax.jit
  def grad(params):
    if chunk is None:
      return jax.grad(
        lambda p: jnp.sum(transformer.apply(spec, p, input_ids=IDS)['logits'] * target)
      )(params)
    return jax.grad(
      lambda p: jnp.sum(chunked(spec, p, kind, chunk, detach, input_ids=IDS)['logits'] * target)
    )(params)

  return grad(weights(spec))


@pytest.mark.parametrize('name', MODELS)
def test_attached_chunks_give_the_gradient_of_sequences(name):
  spec, kind = MODELS[name]
  whole, attached, detached = (
    gradients(spec, kind, c, d) for c, d in ((None, None), (4, False), (4, True))
  )
  scale = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(whole))
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 * scale)
  jax.tree.map(close, attached, whole)
  # Detached gradients miss the contribution of earlier chunks to later ones.
  assert (
    max(
      float(jnp.abs(a - b).max())
      for a, b in zip(*map(jax.tree.leaves, (detached, whole)), strict=True)
    )
    > 1e-3
  )


def test_detached_gradient_treats_the_cache_as_constant():
  spec, params = RECURRENT, weights(RECURRENT)
  states = jax.jit(lambda p: chunked(spec, p, DenseCache(), 7, input_ids=IDS[:, :7])['cache'])(
    params
  )

  def separate(p):
    first = transformer.apply(spec, p, input_ids=IDS[:, :7], cache=init_cache(spec, 3, 16))[
      'logits'
    ]
    return jnp.sum(first**2) + jnp.sum(
      transformer.apply(spec, p, input_ids=IDS[:, 7:], cache=states)['logits'] ** 2
    )

  together = lambda p: jnp.sum(chunked(spec, p, DenseCache(), 7, input_ids=IDS)['logits'] ** 2)
  same = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
  jax.tree.map(same, jax.jit(jax.grad(together))(params), jax.jit(jax.grad(separate))(params))


def test_ring_memory_does_not_grow_with_the_sequence():
  def size(slots):
    cache = jax.eval_shape(lambda: init_cache(WINDOW, 1, slots, kind=RingCache(2)))
    return sum(a.size for a in jax.tree.leaves(cache))

  assert size(64) == size(1 << 20)


def test_each_chunk_gets_its_own_key():
  seen = []

  def apply_fn(cache, input_ids, key):
    seen.append(key)
    return {'cache': cache, 'noise': jax.random.normal(key, input_ids.shape)}

  out = scan_chunks(
    apply_fn, {'input_ids': IDS}, 5, {'next': jnp.zeros(3, int)}, key=jax.random.key(0)
  )
  noise = np.asarray(out['noise'])
  assert noise.shape == IDS.shape
  assert len(np.unique(noise.round(6))) == noise.size


def test_positions_restart_at_documents_not_at_chunks():
  apply_fn = lambda cache, **inputs: {'cache': cache, 'at': inputs['position_ids']}
  start = {'next': jnp.asarray([3, 0, 0])}
  out = scan_chunks(apply_fn, {'input_ids': IDS, 'segment_ids': PACKED}, 4, start)
  expected = np.array(positions(jnp.asarray(PACKED)))
  expected[0, :5] += 3
  np.testing.assert_array_equal(out['at'], expected)


@pytest.mark.parametrize(
  ('inputs', 'chunk', 'out', 'message'),
  [
    ({'input_ids': IDS}, 0, {}, r'chunk=0 is too small\. Expected at least 1 token'),
    (
      {'input_ids': IDS, 'attention_mask': IDS[:, 1:]},
      4,
      {},
      r'inputs differ in shape \(.*\)\. Expected the same \[B, T\] for all',
    ),
    (
      {'input_ids': IDS},
      4,
      {'pooled': jnp.zeros((3, 32))},
      r'output pooled has shape \(3, 32\), without a time axis',
    ),
  ],
)
def test_invalid_arguments_are_errors(inputs, chunk, out, message):
  with pytest.raises(UserError, match=message):
    scan_chunks(
      lambda cache, **_: {'cache': cache, **out}, inputs, chunk, {'next': jnp.zeros(3, int)}
    )
