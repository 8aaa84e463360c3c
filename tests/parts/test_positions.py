"""Positions that are added: sinusoids to embeddings, slopes and buckets to scores."""

import jax.numpy as jnp
import numpy as np
import pytest

from tfm.core import config, errors
from tfm.parts.absolute import Learned, Sinusoidal
from tfm.parts.relative import ALiBi, T5Bias
from tfm.parts.relative.alibi import slopes
from tfm.parts.relative.t5 import bucket
from tfm.parts.tokeninfo import TokenInfo


def waves(piece, positions, D=16):
  pos = jnp.asarray([positions])
  return np.asarray(piece(jnp.zeros((1, len(positions), D)), pos))[0]


@pytest.mark.parametrize('layout', ['interleaved', 'halves', 't2t'])
def test_sinusoids_have_equal_norms_and_depend_on_distance(layout):
  piece = Sinusoidal(layout)
  f = waves(piece, range(40))
  np.testing.assert_allclose((f * f).sum(-1), 8, rtol=1e-5)
  gram = f @ f.T
  np.testing.assert_allclose(gram[3, 10], gram[13, 20], rtol=1e-4)
  np.testing.assert_allclose(np.diagonal(gram, 5), gram[0, 5], atol=1e-4)


def test_a_shift_turns_every_pair_by_its_own_angle():
  f, s = waves(Sinusoidal('halves'), range(30)), 7
  w = 1e4 ** (-np.arange(8) / 8)
  sin, cos = f[:20, :8], f[:20, 8:]
  shifted = np.concatenate(
    [sin * np.cos(s * w) + cos * np.sin(s * w), cos * np.cos(s * w) - sin * np.sin(s * w)], 1
  )
  np.testing.assert_allclose(f[s : s + 20], shifted, atol=1e-5)


def test_layouts_hold_the_papers_numbers():
  f = waves(Sinusoidal(), [3])[0]
  assert f[0] == pytest.approx(np.sin(3))
  assert f[1] == pytest.approx(np.cos(3))
  assert f[2] == pytest.approx(np.sin(3 / 1e4 ** (2 / 16)), rel=1e-5)
  halves = waves(Sinusoidal('halves'), [3])[0]
  np.testing.assert_allclose(halves, np.concatenate([f[::2], f[1::2]]), atol=1e-6)
  # tensor2tensor's slowest wave is base itself, the paper's is not.
  assert waves(Sinusoidal('t2t'), [3])[0][7] == pytest.approx(np.sin(3e-4), rel=1e-4)


def test_an_odd_width_ends_with_a_zero():
  assert waves(Sinusoidal(), [5], D=7)[0, 6] == 0


def test_an_offset_counts_from_there():
  np.testing.assert_array_equal(waves(Sinusoidal(offset=2), [3]), waves(Sinusoidal(), [5]))


def test_alibi_slopes_interpolate_between_powers_of_two():
  assert slopes(8) == [2.0**-h for h in range(1, 9)]
  np.testing.assert_allclose(slopes(12)[8:], [0.707107, 0.353553, 0.176777, 0.088388], rtol=1e-5)
  assert slopes(12)[:8] == slopes(8)
  assert len(slopes(1)) == 1


def test_alibi_falls_with_the_distance_on_both_sides():
  pos = jnp.arange(5)[None]
  info = TokenInfo(pos, jnp.ones_like(pos))
  bias = np.asarray(ALiBi().bias(8, info, info))[0]
  np.testing.assert_allclose(bias[0, 3], [-1.5, -1, -0.5, 0, -0.5])
  np.testing.assert_array_equal(bias, bias.transpose(0, 2, 1))
  np.testing.assert_allclose(np.asarray(ALiBi(scale=0.25).bias(8, info, info))[0], bias / 4)


def test_alibi_as_a_ramp_over_keys_gives_the_same_softmax():
  pos = jnp.arange(6)[None]
  info = TokenInfo(pos, jnp.ones_like(pos))
  scores = np.random.default_rng(0).standard_normal((6, 6))
  ours = scores + np.asarray(ALiBi().bias(8, info, info))[0, 2]
  ramp = scores + slopes(8)[2] * np.arange(6)
  for i in range(6):
    a, b = np.exp(ours[i, : i + 1]), np.exp(ramp[i, : i + 1])
    np.testing.assert_allclose(a / a.sum(), b / b.sum(), rtol=1e-5)


GAPS = [-200, -128, -127, -64, -32, -16, -15, -9, -8, -1, 0, 1, 7, 8, 9, 16, 64, 127, 200]
BOTH = [15, 15, 15, 14, 12, 10, 9, 8, 8, 1, 0, 17, 23, 24, 24, 26, 30, 31, 31]
BACK = [31, 31, 31, 26, 21, 16, 15, 9, 8, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(('bidirectional', 'expected'), [(True, BOTH), (False, BACK)])
def test_buckets_are_the_published_ones(bidirectional, expected):
  np.testing.assert_array_equal(bucket(jnp.asarray(GAPS), bidirectional=bidirectional), expected)


@pytest.mark.parametrize(
  ('piece', 'message'),
  [
    (T5Bias(buckets=6), 'buckets=6 is not a positive multiple of 4'),
    (T5Bias(far=16), 'far=16 leaves the logarithmic buckets empty'),
    (Sinusoidal(base=1.0), r'base=1\.0 is too small'),
    (ALiBi(scale=0.0), r'scale=0\.0 is not positive'),
  ],
)
def test_a_position_that_cannot_be_is_refused(piece, message):
  with pytest.raises(errors.ConfigError, match=message):
    config.validate(piece)


def test_learned_table_reports_its_length():
  assert Learned(128, offset=2).max_positions == 128
  assert Sinusoidal().max_positions is None
