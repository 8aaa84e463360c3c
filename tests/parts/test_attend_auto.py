"""The choice of the attention kernel, and the reasons against faster ones."""

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
  with recorded() as chosen:
    jax.eval_shape(lambda p: apply(spec, p, run=run, input_ids=tokens, **inputs), shapes)
  return chosen


def names(chosen):
  return [c.kernel.table().name_of(c.kernel) for c in chosen]


def test_causal_attention_uses_staircase_if_length_allows():
  assert names(choices(SPEC, T=128)) == ['staircase']
  reasons = {
    130: '4 chunks do not divide 130 tokens.',
    124: 'chunks of 31 queries are shorter than 32, too short to gain.',
  }
  for T, reason in reasons.items():
    (chosen,) = choices(SPEC, T=T)
    assert names([chosen]) == ['dense']
    assert chosen.refused['staircase'] == reason
    assert 'fit into memory' in chosen.refused['blockwise']


def test_encoder_decoder_chooses_a_kernel_per_attention():
  chosen = choices(ENCDEC, decoder_input_ids=jnp.ones((2, 128), jnp.int32))
  assert [c.shape[2:] for c in chosen] == [(16, 16), (128, 128), (128, 16)]
  assert names(chosen) == ['dense', 'staircase', 'dense']


@pytest.mark.parametrize('causal', [True, False])
def test_long_sequences_use_blockwise(causal):
  spec = config.override(SPEC, '..mask', 'causal' if causal else 'full')
  assert names(choices(spec, T=1024)) == ['blockwise']


def test_scores_fit_limits_length_on_cpu_and_memory_elsewhere():
  assert scores_fit('cpu', 64, 12, 256, 256)
  assert not scores_fit('cpu', 1, 1, 512, 512)
  assert scores_fit('tpu', 1, 12, 2048, 1024)
  assert not scores_fit('tpu', 8, 12, 1024, 1024)


def test_chosen_kernel_matches_dense_attention():
  params = init(SPEC, jax.random.key(0))
  tokens = jax.random.randint(jax.random.key(1), (2, 128), 0, SPEC.vocab)
  logits = lambda run: jax.jit(lambda p: apply(SPEC, p, run=run, input_ids=tokens)['logits'])(
    params
  )
  np.testing.assert_allclose(logits(Run(attend=Auto())), logits(Run()), atol=1e-5)


#: A product of longer vectors than fit into a tile.
WIDE = lambda q, k: Product(*[jnp.zeros((1, 4, 2048, 4096))] * 2)


def test_tpu_uses_pallas_and_falls_back_to_dense():
  x = jax.ShapeDtypeStruct((1, 2048, 4, 64), jnp.bfloat16)
  info = TokenInfo(*[jax.ShapeDtypeStruct((1, 2048), jnp.int32)] * 2)
  choose = lambda scores: Auto().choose('tpu', x, x, x, info, info, scores)
  plain = Scores(1.0, Causal() & Segments())
  assert names([choose(plain)]) == ['pallas']
  fallback = choose(dataclasses.replace(plain, products=(WIDE,)))
  assert fallback.refused['pallas'].startswith('terms have')
  assert names([fallback]) == ['dense']


def chosen_on(platform, dtype=jnp.bfloat16, B=1, T=2048, **changes):
  x = jax.ShapeDtypeStruct((B, T, 4, 64), dtype)
  info = TokenInfo(*[jax.ShapeDtypeStruct((B, T), jnp.int32)] * 2)
  scores = dataclasses.replace(Scores(1.0, Causal() & Segments(), ordered=True), **changes)
  return Auto().choose(platform, x, x, x, info, info, scores)


def test_gpu_uses_cudnn_and_falls_back(monkeypatch):
  monkeypatch.setattr(cudnn, 'missing_support', lambda: None)
  assert names([chosen_on('gpu')]) == ['cudnn']
  assert chosen_on('gpu').refused == {'pallas': 'its kernels are for TPUs, and this is a gpu.'}
  precise = chosen_on('gpu', jnp.float32)
  assert names([precise, chosen_on('gpu', cap=2.0), chosen_on('gpu', cap=2.0, B=16)]) == [
    'staircase'
  ] * 2 + ['blockwise']
  assert 'float32 is neither bfloat16 nor float16' in precise.refused['cudnn']
  long = chosen_on('gpu', T=1 << 15)
  assert names([long]) == ['blockwise']
  assert long.refused['cudnn'] == 'a mask of 1,073,741,824 entries is too large.'


def test_other_gpus_do_not_use_cudnn(monkeypatch):
  monkeypatch.setattr(
    cudnn, 'missing_support', lambda: 'its kernels are for NVIDIA GPUs, and this is another'
  )
  assert names([chosen_on('gpu')]) == ['staircase']


def test_tpu_prefers_pallas_to_vendor_kernels():
  assert names([chosen_on('tpu')]) == ['pallas']
  assert chosen_on('tpu').refused == {}
  odd = chosen_on('tpu', products=(WIDE,))
  assert odd.refused['cudnn'] == 'its kernels are for GPUs, and this is a tpu.'
  assert 'splash' not in odd.refused


def test_value_tables_use_plain_kernels_on_every_platform(monkeypatch):
  monkeypatch.setattr(cudnn, 'missing_support', lambda: None)
  tables = (ValueTable(lambda q, k: distance(q.rows(), k.columns(), 2), jnp.zeros((5, 64))),)
  for platform, kernel in (('tpu', 'pallas'), ('gpu', 'cudnn')):
    short, long = (chosen_on(platform, B=B, value_tables=tables) for B in (1, 16))
    assert names([short, long]) == ['staircase', 'blockwise']
    assert 'position vectors of values' in short.refused[kernel]


def test_last_candidate_is_dense():
  assert CANDIDATES[-1].table().name_of(CANDIDATES[-1]) == 'dense'
