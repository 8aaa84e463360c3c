"""Rotary positions: invariants, and published numbers of RoPE scalings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm.core import config, errors
from tfm.parts.relative import RoPE
from tfm.parts.relative.scaling import TABLE, Dynamic, Linear, Llama3, LongRoPE, Yarn

_D = 128


def frequencies(base=1e4, d=_D):
  return base ** (-np.arange(0, d, 2) / d)


def rotated(rope, x_H, pos):
  pos = jnp.asarray([[pos]], jnp.int32)
  return np.asarray(rope.rotate(jnp.asarray(x_H, jnp.float32)[None, None, None], pos))[0, 0, 0]


@pytest.fixture(scope='module')
def q_k():
  rng = np.random.default_rng(0)
  return rng.standard_normal((2, 16))


@pytest.mark.parametrize(
  'rope', [RoPE(), RoPE(layout='interleaved'), RoPE(fraction=0.25), RoPE(scaling=Llama3())]
)
def test_rope_scores_depend_only_on_distance(rope, q_k):
  q, k = q_k
  near = rotated(rope, q, 7) @ rotated(rope, k, 3)
  for shift in (1, 50, 500):
    assert rotated(rope, q, 7 + shift) @ rotated(rope, k, 3 + shift) == pytest.approx(
      near, abs=1e-3
    )
  assert np.linalg.norm(rotated(rope, q, 99)) == pytest.approx(np.linalg.norm(q), rel=1e-6)
  assert rotated(rope, q, 7) @ rotated(rope, k, 4) != pytest.approx(near, abs=1e-3)


def test_rope_scores_depend_only_on_distance_in_float64(q_k):
  # The identity itself, without the rounding of float32.
  q, k = (v[:8] + 1j * v[8:] for v in q_k)
  w = frequencies(d=16)
  score = lambda i, j: np.real(np.sum(q * np.exp(1j * i * w) * np.conj(k * np.exp(1j * j * w))))
  assert score(7, 3) == pytest.approx(score(1007, 1003), abs=1e-10)


@pytest.mark.parametrize('pos', [0, 1, 31])
def test_rotation_is_complex_multiplication(q_k, pos):
  q = q_k[0]
  z = (q[:8] + 1j * q[8:]) * np.exp(1j * pos * frequencies(d=16))
  np.testing.assert_allclose(rotated(RoPE(), q, pos), [*z.real, *z.imag], atol=1e-5)


def test_interleaved_layout_is_permuted_halves(q_k):
  order = (
    np.arange(16).reshape(2, 8).T.ravel()
  )  # 0 8 1 9 ...: the pairs of the halves layout, interleaved
  q = q_k[0]
  np.testing.assert_allclose(
    rotated(RoPE(layout='interleaved'), q[order], 13), rotated(RoPE(), q, 13)[order], atol=1e-6
  )


def test_fraction_leaves_the_rest_of_the_head_unchanged(q_k):
  q = q_k[0]
  y = rotated(RoPE(fraction=0.5), q, 5)
  np.testing.assert_array_equal(y[8:], q[8:].astype(np.float32))
  np.testing.assert_allclose(y[:8], rotated(RoPE(), q[:8], 5), atol=1e-6)


def test_angles_are_float32_for_bfloat16_inputs():
  x = jnp.ones((1, 1, 1, 4), jnp.bfloat16)
  pos = jnp.asarray([[100_003]], jnp.int32)
  y = RoPE().rotate(x, pos)
  assert y.dtype == jnp.bfloat16
  exact = RoPE().rotate(x.astype(jnp.float32), pos)
  np.testing.assert_allclose(y.astype(jnp.float32), exact, atol=0.01)


def test_linear_scaling_divides_every_frequency():
  scaled, factor = Linear(4.0).scale(frequencies(), 1e4)
  np.testing.assert_allclose(scaled, frequencies() / 4)
  assert factor == 1


def test_dynamic_scaling_has_the_published_base():
  scaled, _ = Dynamic(4.0, 4096, 16_384).scale(frequencies(), 1e4)
  np.testing.assert_allclose(scaled, frequencies(135_401.97), rtol=1e-6)
  np.testing.assert_array_equal(
    Dynamic(4.0, 4096, 4096).scale(frequencies(), 1e4)[0], frequencies()
  )


def test_yarn_has_the_published_numbers():
  w = frequencies()
  scaled, factor = Yarn(4.0, 4096).scale(w, 1e4)
  kept, divided = np.isclose(scaled, w), np.isclose(scaled, w / 4)
  assert (kept.sum(), (~kept & ~divided).sum(), divided.sum()) == (21, 25, 18)
  assert factor == pytest.approx(1.1386294, abs=1e-7)
  published = {25: 2.34345514e-2, 30: 9.48851742e-3, 40: 1.33788679e-3, 63: 2.88695483e-5}
  np.testing.assert_allclose(scaled[list(published)], list(published.values()), rtol=1e-6)


@pytest.mark.parametrize(
  ('mscale', 'cos_factor'), [((0.707, 0.707), 1.0), ((1.0, 1.0), 1.0), ((1.0, 0.0), 1.3688879)]
)
def test_yarn_with_two_mscales_scales_cos_by_their_ratio(mscale, cos_factor):
  piece = Yarn(40.0, 4096, mscale=mscale[0], mscale_all=mscale[1])
  assert piece.scale(frequencies(), 1e4)[1] == pytest.approx(cos_factor)


def test_llama3_has_the_published_numbers():
  w = frequencies(5e5)
  scaled, factor = Llama3(8.0, 1.0, 4.0, 8192).scale(w, 5e5)
  kept, divided = np.isclose(scaled, w), np.isclose(scaled, w / 8)
  assert (kept.sum(), (~kept & ~divided).sum(), divided.sum()) == (29, 6, 29)
  assert factor == 1
  published = {30: 1.37189368e-3, 34: 1.78507791e-4, 63: 3.06892588e-7}
  np.testing.assert_allclose(scaled[list(published)], list(published.values()), rtol=1e-6)


def test_longrope_divides_each_pair_by_a_factor():
  short, long = (1.0,) * 8, tuple(1.0 + i for i in range(8))
  far = LongRoPE(short, long, original=4096, length=131_072)
  w = frequencies(d=16)
  scaled, factor = far.scale(w, 1e4)
  np.testing.assert_allclose(scaled, w / np.arange(1, 9))
  assert factor == pytest.approx((1 + np.log(32) / np.log(4096)) ** 0.5)
  near = LongRoPE(short, long, original=4096, length=4096)
  np.testing.assert_array_equal(near.scale(w, 1e4)[0], w)


@pytest.mark.parametrize('name', TABLE)
def test_scalings_never_raise_frequencies(name):
  scaled, factor = TABLE[name]().scale(frequencies(), 1e4)
  assert (scaled <= frequencies() * (1 + 1e-12)).all()
  assert factor >= 1


@pytest.mark.parametrize(
  ('piece', 'message'),
  [
    (RoPE(fraction=0.0), r'fraction=0\.0 is not a share of a head'),
    (RoPE(base=1.0), r'base=1\.0 does not increase wavelengths'),
    (RoPE(scaling=LongRoPE((1.0,), ())), 'short has 1 factors and long has 0'),
  ],
)
def test_invalid_rope_fields_are_errors(piece, message):
  with pytest.raises(errors.ConfigError, match=message):
    config.validate(piece)


def test_odd_rotated_sizes_are_errors():
  assert 'cannot be rotated in pairs' in next(RoPE(fraction=0.25).fits(12))
  assert not list(RoPE(fraction=0.25).fits(16))


def test_rope_under_jit_matches_eager():
  x = jax.random.normal(jax.random.key(0), (1, 3, 2, 8))
  pos = jnp.arange(3)[None]
  np.testing.assert_allclose(jax.jit(RoPE().rotate)(x, pos), RoPE().rotate(x, pos), atol=1e-6)
