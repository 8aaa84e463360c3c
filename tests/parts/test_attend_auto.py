"""The kernel chosen for what is asked, and why not a faster one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm.core import config
from tfm.model.transformer import apply, init
from tfm.parts.attend import Auto
from tfm.parts.attend.auto import CANDIDATES, recorded
from tfm.parts.attend.base import Scores, few
from tfm.parts.context import Run
from tfm.parts.mask import Causal, Segments
from tfm.parts.site import Site
from tfm.zoo import get, tiny

SPEC = tiny(get('gpt2'))
ENCDEC = tiny(get('t5-small'))


def choices(spec, run=Run(attend=Auto()), T=16, **inputs):
  tokens = jnp.ones((2, T), jnp.int32)
  shapes = jax.eval_shape(lambda: init(spec, jax.random.key(0)))
  with recorded() as found:
    jax.eval_shape(lambda p: apply(spec, p, run=run, input_ids=tokens, **inputs), shapes)
  return found


def names(found):
  return [c.kernel.table().name_of(c.kernel) for c in found]


def test_short_causal_rows_take_the_stairs_and_rows_that_do_not_divide_are_dense():
  assert names(choices(SPEC)) == ['staircase']
  (odd,) = choices(SPEC, T=15)
  assert names([odd]) == ['dense']
  assert odd.refused['staircase'] == '15 tokens cannot be cut into 4 runs.'
  assert 'few enough' in odd.refused['blockwise']


def test_an_encoder_decoder_is_asked_in_each_of_its_places():
  found = choices(ENCDEC, decoder_input_ids=jnp.ones((2, 8), jnp.int32))
  assert [c.shape[2:] for c in found] == [(16, 16), (8, 8), (8, 16)]
  assert names(found) == ['dense', 'staircase', 'dense']


@pytest.mark.parametrize('causal', [True, False])
def test_many_scores_go_tile_by_tile(causal):
  spec = config.override(config.override(SPEC, 'absolute', 'none'), '..mask', 'causal' if causal else 'full')
  assert names(choices(spec, T=1024)) == ['blockwise']


def test_how_many_are_few_goes_by_the_row_on_a_cpu_and_by_memory_elsewhere():
  assert few('cpu', 64, 12, 256, 256)
  assert not few('cpu', 1, 1, 512, 512)
  assert few('tpu', 1, 12, 2048, 1024)
  assert not few('tpu', 8, 12, 1024, 1024)


def test_what_is_chosen_gives_the_numbers_of_the_dense_kernel():
  params = init(SPEC, jax.random.key(0))
  tokens = jax.random.randint(jax.random.key(1), (2, 16), 0, SPEC.vocab)
  logits = lambda run: jax.jit(lambda p: apply(SPEC, p, run=run, input_ids=tokens)['logits'])(params)
  np.testing.assert_allclose(logits(Run(attend=Auto())), logits(Run()), atol=1e-5)


def test_a_tpu_is_offered_its_own_kernel_and_what_that_refuses_goes_by_tiles_or_dense():
  x = jax.ShapeDtypeStruct((1, 2048, 4, 64), jnp.bfloat16)
  site = Site(*[jax.ShapeDtypeStruct((1, 2048), jnp.int32)] * 2)
  choose = lambda scores: Auto().choose('tpu', x, x, x, site, site, scores)
  plain = Scores(1.0, Causal() & Segments())
  assert names([choose(plain)]) == ['pallas']
  asked = choose(dataclasses.replace(plain, contents=(lambda q, k, a, b: jnp.zeros((1, 4, 2048, 2048)),)))
  assert 'contents' in asked.refused['pallas']
  assert names([asked]) == ['dense']


def test_the_last_candidate_refuses_nothing():
  assert CANDIDATES[-1].table().name_of(CANDIDATES[-1]) == 'dense'
