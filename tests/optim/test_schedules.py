import dataclasses
import math

import jax
import numpy as np
import pytest

from tfm.optim.schedule import TABLE, WSD, Constant, Cosine, Linear, Rsqrt


def nanogpt(it):
  if it < 100:
    return 1e-3 * (it + 1) / 101
  return 1e-4 + 0.5 * (1 + math.cos(math.pi * (it - 100) / 1900)) * 9e-4


def test_cosine_matches_nanogpt():
  rate = Cosine(warmup=100, floor=0.1).make(1e-3, 2000)
  for it in (0, 1, 57, 99, 100, 101, 1000, 1999):
    np.testing.assert_allclose(rate(it), nanogpt(it), rtol=1e-6)
  np.testing.assert_allclose(rate(2000), 1e-4, rtol=1e-6)
  np.testing.assert_allclose(rate(5000), 1e-4, rtol=1e-6)


def test_horizon_replaces_the_number_of_steps():
  np.testing.assert_array_equal(
    Cosine(warmup=10, horizon=200).make(1.0, 999)(np.arange(300)),
    Cosine(warmup=10).make(1.0, 200)(np.arange(300)),
  )


def test_noam_matches_the_paper():
  rate = Rsqrt(warmup=4000, d_model=512).make(1.0, 100_000)
  for s, lr in ((1, 1.746928e-7), (4000, 6.987712e-4), (100_000, 1.397542e-4)):
    np.testing.assert_allclose(rate(s - 1), lr, rtol=1e-6)
  by_peak = Rsqrt(warmup=4000).make((512 * 4000) ** -0.5, 100_000)
  np.testing.assert_allclose(by_peak(np.arange(9000)), rate(np.arange(9000)), rtol=1e-6)


def test_rsqrt_with_a_hold_matches_t5():
  rate = Rsqrt(warmup=0, hold=10_000).make(0.01, 1_000_000)
  for s in (1, 9_999, 10_000, 10_001, 40_000, 1_000_000):
    np.testing.assert_allclose(rate(s - 1), 1 / math.sqrt(max(s, 1e4)), rtol=1e-6)


def test_linear_decays_by_equal_steps_to_its_floor():
  rate = Linear(warmup=3, floor=0.0).make(2.0, 7)
  np.testing.assert_allclose(
    rate(np.arange(9)), [0.5, 1.0, 1.5, 2.0, 1.5, 1.0, 0.5, 0.0, 0.0], atol=1e-6
  )


def test_constant_is_flat_after_its_warm_up():
  np.testing.assert_allclose(Constant(warmup=1).make(4.0, 3)(np.arange(4)), [2.0, 4.0, 4.0, 4.0])
  np.testing.assert_allclose(Constant().make(4.0, 3)(0), 4.0)


def test_wsd_is_flat_until_its_last_fraction():
  t = np.arange(11) / 10
  for shape, tail in (('linear', 1 - t), ('sqrt', 1 - np.sqrt(t))):
    rate = WSD(warmup=9, fraction=0.1, shape=shape, floor=0.5).make(1.0, 100)
    np.testing.assert_allclose(rate(np.arange(9, 91)), 1.0)
    np.testing.assert_allclose(rate(np.arange(90, 101)), 0.5 + 0.5 * tail, atol=1e-6)
    np.testing.assert_allclose(rate(4), 0.5)


@pytest.mark.parametrize('name', TABLE)
def test_every_schedule_is_positive_and_equal_under_jit(name):
  rate = dataclasses.replace(TABLE[name](), warmup=5).make(1e-3, 50)
  rates = np.stack([rate(i) for i in range(50)])
  assert rates.dtype == np.float32
  assert np.isfinite(rates).all()
  assert (rates > 0).all()
  assert rates.max() <= 1e-3 * (1 + 1e-6)
  assert rates.argmax() in (4, 5)
  np.testing.assert_allclose(jax.jit(jax.vmap(rate))(np.arange(50)), rates, rtol=1e-5)
  assert list(TABLE[name]().check()) == []


@pytest.mark.parametrize('name', TABLE)
def test_run_shorter_than_its_warm_up_ends_inside_it(name):
  rates = dataclasses.replace(TABLE[name](), warmup=100).make(1.0, 10)(np.arange(10))
  assert (np.diff(rates) > 0).all()
  assert rates[-1] < 0.2


@pytest.mark.parametrize(
  ('schedule', 'sentence'),
  [
    (Constant(warmup=-1), 'warmup: is -1. Expected 0 or more.'),
    (Cosine(floor=2.0), 'floor: is 2.0. Expected a fraction of the peak'),
    (Cosine(horizon=0), 'horizon: is 0. Expected 1 or more'),
    (
      Rsqrt(warmup=20, hold=10),
      'hold: is 10, before the end of the warm-up of 20. Expected 20 or more',
    ),
    (Rsqrt(d_model=0), 'd_model: is 0. Expected 1 or more'),
    (WSD(fraction=0.0), 'fraction: is 0.0. Expected more than 0'),
    (WSD(shape='sqr'), "shape: unknown tail 'sqr'. Did you mean 'sqrt'? Known: linear, sqrt."),
  ],
)
def test_invalid_schedule_is_an_error(schedule, sentence):
  assert [s for s in schedule.check() if s.startswith(sentence)]
