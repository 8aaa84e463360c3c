"""Rounded projections: values, gradients, and weights prepared for decoding."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm.core import config, errors
from tfm.generate import prepare
from tfm.model import transformer
from tfm.model.adapters import merge_adapters
from tfm.model.spec import Block, Model, Segment
from tfm.parts.adapter import LoRA
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn import Glu, Moe
from tfm.parts.mixer import Attention
from tfm.parts.norm import RMSNorm
from tfm.parts.rounding import Rounding, Ternary

RNG = np.random.default_rng(0)
IDS = jnp.asarray(RNG.integers(1, 32, (2, 6)))


def model(ffn=None, **fields):
  block = Block(Attention(2, head_dim=4), ffn or Glu(12), rounding=Ternary(), **fields)
  return Model(Tokens(32), 8, (Segment((block,), 2),))


def rounded_by_hand(w):
  """Return t(W) of a matrix, computed one number at a time."""
  scale = np.abs(w).mean()
  return np.array(
    [scale * min(1, max(-1, np.round(x / scale))) for x in w.ravel()], np.float32
  ).reshape(w.shape)


def test_weights_are_a_scale_times_three_values():
  w = RNG.standard_normal((6, 5)).astype(np.float32)
  np.testing.assert_allclose(Ternary().weight(jnp.asarray(w)), rounded_by_hand(w), rtol=1e-6)
  np.testing.assert_array_equal(Ternary(weights=False).weight(jnp.asarray(w)), w)


def test_leading_axes_have_separate_scales():
  w = RNG.standard_normal((3, 6, 5)).astype(np.float32) * np.array([1, 5, 0.1], np.float32).reshape(
    3, 1, 1
  )
  rounded = Ternary().weight(jnp.asarray(w), 1)
  np.testing.assert_allclose(rounded, np.stack([rounded_by_hand(one) for one in w]), rtol=1e-6)


def test_inputs_are_rounded_to_127_steps_of_each_token():
  x = RNG.standard_normal((2, 3, 4, 5)).astype(np.float32)
  rounded = np.asarray(Ternary().inputs(jnp.asarray(x), 2))
  largest = np.abs(x).max((-2, -1), keepdims=True)
  steps = rounded / largest * 127
  np.testing.assert_allclose(steps, np.round(steps), atol=1e-4)
  assert (np.abs(rounded - x) <= largest / 127 / 2 * 1.001).all()
  assert len(np.unique(rounded[0, 0])) > 10


@pytest.mark.parametrize('part', ['inputs', 'weight'])
def test_gradients_pass_straight_through(part):
  x, g = (jnp.asarray(RNG.standard_normal((4, 5)), jnp.float32) for _ in range(2))
  gradient = jax.grad(lambda x: jnp.sum(g * getattr(Ternary(), part)(x)))(x)
  np.testing.assert_array_equal(gradient, g)


def test_zeros_stay_zeros():
  zeros = jnp.zeros((3, 4))
  np.testing.assert_array_equal(Ternary().inputs(zeros), zeros)
  np.testing.assert_array_equal(Ternary().weight(zeros), zeros)


def test_router_scores_are_not_rounded():
  assert [Ternary().wraps(role) for role in ('q', 'down', 'score', 'shared_gate')] == [
    True,
    True,
    False,
    False,
  ]
  assert not Rounding().wraps('q')


@pytest.mark.parametrize('ffn', [Glu(12), Moe(4, expert=Glu(12))])
def test_stored_rounded_weights_give_the_same_logits(ffn):
  """Exactly the projections of blocks are rounded, as with weights that are stored rounded."""
  spec = model(ffn)
  params = transformer.init(spec, jax.random.key(0))
  letters = transformer.param_letters(spec)

  def stored(path, w, letters):
    layers = (
      path[0].key.startswith('segment_') and path[-1].key == 'kernel' and path[-2].key != 'score'
    )
    return Ternary().weight(w, 1 + ('E' in letters)) if layers else w

  block = dataclasses.replace(spec.segments[0].pattern[0], rounding=Ternary(weights=False))
  offline = dataclasses.replace(spec, segments=(Segment((block,), 2),))
  run = lambda spec, params: transformer.apply(spec, params, input_ids=IDS)['logits']
  expected = run(offline, jax.tree.map_with_path(stored, params, letters))
  np.testing.assert_allclose(run(spec, params), expected, atol=1e-6)
  assert np.abs(expected - run(offline, params)).max() > 1e-3


def test_prepared_weights_are_rounded_once():
  spec = model()
  params = transformer.init(spec, jax.random.key(0))
  run = lambda params: transformer.apply(spec, params, input_ids=IDS)['logits']
  np.testing.assert_allclose(run(prepare(spec, params)), run(params), atol=1e-6)


def test_adapters_of_rounded_weights_are_not_merged():
  spec = dataclasses.replace(model(), adapter=LoRA(2))
  with pytest.raises(
    errors.UserError, match=r'rounding=ternary rounds weights .* Expected rounding=none'
  ):
    merge_adapters(spec, transformer.init(spec, jax.random.key(0)))


def test_experts_with_a_norm_raise():
  with pytest.raises(
    errors.ConfigError, match=r'expert=glu cannot be used as an expert\. .*without a norm'
  ):
    config.validate(model(Moe(4, expert=Glu(12, norm=RMSNorm()))))
