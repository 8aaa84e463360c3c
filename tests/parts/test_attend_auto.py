"""The kernel chosen for what is asked, and why not a faster one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm.core import config
from tfm.model.transformer import apply, init
from tfm.parts.attend import Auto, cudnn
from tfm.parts.attend.auto import CANDIDATES, recorded
from tfm.parts.attend.base import Scores, scores_fit
from tfm.parts.attend.value_table import ValueTable
from tfm.parts.context import Run
from tfm.parts.mask import Causal, Segments
from tfm.parts.relative.toeplitz import distance
from tfm.parts.term import Product
from tfm.parts.tokeninfo import TokenInfo
from tfm.zoo import get, tiny

SPEC = config.override(tiny(get('gpt2')), 'absolute', 'none')
ENCDEC = tiny(get('t5-small'))


def choices(spec, run=Run(attend=Auto()), T=16, **inputs):
  tokens = jnp.ones((2, T), jnp.int32)
  shapes = jax.eval_shape(lambda: init(spec, jax.random.key(0)))
  with recorded() as found:
    jax.eval_shape(lambda p: apply(spec, p, run=run, input_ids=tokens, **inputs), shapes)
  return found


def names(found):
  return [c.kernel.table().name_of(c.kernel) for c in found]


def test_causal_rows_take_the_stairs_unless_they_do_not_divide_or_are_too_short_for_it():
  assert names(choices(SPEC, T=128)) == ['staircase']
  whys = {
    130: '130 tokens cannot be cut into 4 runs.',
    124: 'runs of 31 queries save less than they cost; from 32 on they pay.',
  }
  for T, why in whys.items():
    (found,) = choices(SPEC, T=T)
    assert names([found]) == ['dense']
    assert found.refused['staircase'] == why
    assert 'few enough' in found.refused['blockwise']


def test_an_encoder_decoder_is_asked_in_each_of_its_places():
  found = choices(ENCDEC, decoder_input_ids=jnp.ones((2, 128), jnp.int32))
  assert [c.shape[2:] for c in found] == [(16, 16), (128, 128), (128, 16)]
  assert names(found) == ['dense', 'staircase', 'dense']


@pytest.mark.parametrize('causal', [True, False])
def test_many_scores_go_tile_by_tile(causal):
  spec = config.override(SPEC, '..mask', 'causal' if causal else 'full')
  assert names(choices(spec, T=1024)) == ['blockwise']


def test_how_many_are_few_goes_by_the_row_on_a_cpu_and_by_memory_elsewhere():
  assert scores_fit('cpu', 64, 12, 256, 256)
  assert not scores_fit('cpu', 1, 1, 512, 512)
  assert scores_fit('tpu', 1, 12, 2048, 1024)
  assert not scores_fit('tpu', 8, 12, 1024, 1024)


def test_what_is_chosen_gives_the_numbers_of_the_dense_kernel():
  params = init(SPEC, jax.random.key(0))
  tokens = jax.random.randint(jax.random.key(1), (2, 128), 0, SPEC.vocab)
  logits = lambda run: jax.jit(lambda p: apply(SPEC, p, run=run, input_ids=tokens)['logits'])(
    params
  )
  np.testing.assert_allclose(logits(Run(attend=Auto())), logits(Run()), atol=1e-5)


#: Queries and keys that meet in more numbers than a chip holds beside a tile.
WIDE = lambda q, k: Product(*[jnp.zeros((1, 4, 2048, 4096))] * 2)


def test_a_tpu_is_offered_its_own_kernel_and_what_that_refuses_goes_by_tiles_or_dense():
  x = jax.ShapeDtypeStruct((1, 2048, 4, 64), jnp.bfloat16)
  info = TokenInfo(*[jax.ShapeDtypeStruct((1, 2048), jnp.int32)] * 2)
  choose = lambda scores: Auto().choose('tpu', x, x, x, info, info, scores)
  plain = Scores(1.0, Causal() & Segments())
  assert names([choose(plain)]) == ['pallas']
  asked = choose(dataclasses.replace(plain, products=(WIDE,)))
  assert asked.refused['pallas'].startswith('terms have')
  assert names([asked]) == ['dense']


def asked_on(platform, dtype=jnp.bfloat16, B=1, T=2048, **changes):
  x = jax.ShapeDtypeStruct((B, T, 4, 64), dtype)
  info = TokenInfo(*[jax.ShapeDtypeStruct((B, T), jnp.int32)] * 2)
  scores = dataclasses.replace(Scores(1.0, Causal() & Segments(), ordered=True), **changes)
  return Auto().choose(platform, x, x, x, info, info, scores)


def test_a_gpu_is_offered_cudnn_and_what_that_refuses_goes_as_before(monkeypatch):
  monkeypatch.setattr(cudnn, 'missing_support', lambda: None)
  assert names([asked_on('gpu')]) == ['cudnn']
  assert asked_on('gpu').refused == {'pallas': 'its kernels are for TPUs, and interpreted on a gpu'}
  precise = asked_on('gpu', jnp.float32)
  assert names([precise, asked_on('gpu', cap=2.0), asked_on('gpu', cap=2.0, B=16)]) == [
    'staircase'
  ] * 2 + ['blockwise']
  assert 'float32 is neither bfloat16 nor float16' in precise.refused['cudnn']
  long = asked_on('gpu', T=1 << 15)
  assert names([long]) == ['blockwise']
  assert long.refused['cudnn'] == 'a mask of 1,073,741,824 numbers is too much to keep.'


def test_a_gpu_that_cudnn_is_not_for_goes_without(monkeypatch):
  monkeypatch.setattr(
    cudnn, 'missing_support', lambda: 'its kernels are for GPUs of NVIDIA, and this is another'
  )
  assert names([asked_on('gpu')]) == ['staircase']


def test_no_vendor_is_asked_on_a_tpu_before_our_own():
  assert names([asked_on('tpu')]) == ['pallas']
  assert asked_on('tpu').refused == {}
  odd = asked_on('tpu', products=(WIDE,))
  assert odd.refused['cudnn'] == 'its kernels are for GPUs, and this is a tpu.'
  assert 'splash' not in odd.refused


def test_what_is_added_to_values_goes_by_tiles_or_dense_whatever_the_platform(monkeypatch):
  monkeypatch.setattr(cudnn, 'missing_support', lambda: None)
  added = (ValueTable(lambda q, k: distance(q.rows(), k.columns(), 2), jnp.zeros((5, 64))),)
  for platform, kernel in (('tpu', 'pallas'), ('gpu', 'cudnn')):
    short, long = (asked_on(platform, B=B, added=added) for B in (1, 16))
    assert names([short, long]) == ['staircase', 'blockwise']
    assert short.refused[kernel].startswith(
      'vectors that are added to values (`added`) are not among what'
    )


def test_the_last_candidate_refuses_nothing():
  assert CANDIDATES[-1].table().name_of(CANDIDATES[-1]) == 'dense'
