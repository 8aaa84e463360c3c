"""Sampling filters follow their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm.generate.sampling import Sampling, sample, warp
from tfm.parts.cpu.argmax import argmax

LOGITS = jnp.asarray(np.random.default_rng(0).normal(size=(4, 50)) * 3, jnp.float32)
jitted_warp = jax.jit(warp)


def kept(logits, **fields):
  """Return the set of token ids that remain in each row."""
  values = Sampling(**fields).sampling_values()
  out = np.asarray(jitted_warp(jnp.asarray(logits, jnp.float32), values))
  return [set(np.flatnonzero(np.isfinite(row)).tolist()) for row in out]


def probabilities(logits):
  return np.asarray(jax.nn.softmax(logits, axis=-1), np.float64)


@pytest.mark.parametrize('k', [1, 7, 50, 99])
def test_top_k_keeps_the_k_most_probable(k):
  assert kept(LOGITS, top_k=k) == [
    set(row[:k].tolist()) for row in np.argsort(-np.asarray(LOGITS), axis=-1)
  ]


@pytest.mark.parametrize('p', [1e-6, 0.3, 0.9, 0.999])
def test_top_p_keeps_the_smallest_set_with_mass_p(p):
  for row, keeps in zip(probabilities(LOGITS), kept(LOGITS, top_p=p), strict=True):
    order = np.argsort(-row)
    enough = int(np.searchsorted(np.cumsum(row[order]), p)) + 1
    assert keeps == set(order[:enough].tolist())


def test_top_p_of_one_keeps_everything():
  assert kept(LOGITS, top_p=1.0) == [set(range(50))] * 4


@pytest.mark.parametrize('p', [0.0, 0.02, 0.5, 1.0])
def test_min_p_keeps_a_share_of_the_top_probability(p):
  for row, keeps in zip(probabilities(LOGITS), kept(LOGITS, min_p=p), strict=True):
    assert keeps == set(np.flatnonzero(row >= p * row.max() * (1 - 1e-6)).tolist())


def test_filters_apply_one_after_another():
  # Among the top four, 0.4 / 0.8 is half of the mass, so top_p keeps one token instead of two.
  logits = jnp.log(jnp.asarray([[0.4, 0.2, 0.1, 0.1] + [0.2 / 6] * 6]))
  assert kept(logits, top_p=0.45) == [{0, 1}]
  assert kept(logits, top_k=4, top_p=0.45) == [{0}]


def test_equal_logits_are_kept_or_removed_together():
  assert kept([[1.0, 2.0, 2.0, 0.0]], top_k=1) == [{1, 2}]
  assert kept([[0.0, -0.0, -1.0]], top_k=1) == [{0, 1}]


def test_temperature_comes_first_and_divides():
  out = jitted_warp(LOGITS, Sampling(temperature=2.0).sampling_values())
  np.testing.assert_allclose(out, LOGITS / 2, rtol=1e-6)


def test_temperature_zero_is_greedy():
  keys = jax.random.split(jax.random.key(0), 4)
  tok_B = sample(LOGITS, keys, Sampling(temperature=0, top_k=3).sampling_values())
  assert tok_B.tolist() == np.argmax(LOGITS, axis=-1).tolist()


def test_sample_frequencies_match_probabilities():
  n, p = 4000, np.array([0.5, 0.3, 0.15, 0.05])
  logits = jnp.broadcast_to(jnp.log(jnp.asarray(p, jnp.float32))[None], (n, 4))
  keys = jax.random.split(jax.random.key(1), n)
  tok_B = jax.jit(sample)(logits, keys, Sampling(top_k=3).sampling_values())
  share = np.bincount(tok_B, minlength=4) / n
  expected = np.array([0.5, 0.3, 0.15, 0]) / 0.95
  assert np.all(np.abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / n) + 1e-9)


@pytest.mark.oracle
@pytest.mark.parametrize(
  'fields',
  [{'temperature': 0.7}, {'top_k': 5}, {'top_p': 0.6}, {'min_p': 0.1},
   {'temperature': 1.7, 'top_k': 12, 'top_p': 0.8, 'min_p': 0.2}],
)  # fmt: skip
def test_filtered_logits_equal_transformers(fields):
  import torch
  from transformers.generation import logits_process as hf

  classes = {'temperature': hf.TemperatureLogitsWarper, 'top_k': hf.TopKLogitsWarper,
             'top_p': hf.TopPLogitsWarper, 'min_p': hf.MinPLogitsWarper}  # fmt: skip
  scores = torch.tensor(np.asarray(LOGITS))
  for name, cls in classes.items():
    if name in fields:
      scores = cls(fields[name])(None, scores)
  np.testing.assert_allclose(
    jitted_warp(LOGITS, Sampling(**fields).sampling_values()), scores.numpy(), rtol=1e-6
  )


def test_argmax_on_cpu_is_the_first_largest_index():
  x_BV = np.random.default_rng(0).integers(0, 4, (6, 33)).astype(np.float32)
  x_BV[0], x_BV[1, 5:] = -np.inf, -np.inf
  x_BV[2, 32] = np.inf
  np.testing.assert_array_equal(argmax(jnp.asarray(x_BV)), x_BV.argmax(1))
