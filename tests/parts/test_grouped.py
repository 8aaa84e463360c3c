"""The grouped product matches a loop over experts, for CPUs and accelerators."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm.parts import grouped

RNG = np.random.default_rng(0)
SIZES = {
  'uneven': (40, [3, 0, 25, 7, 0]),
  'more rows than runs': (700, [650, 0, 1]),
  'pieces of all lengths': (4200, [1213, 0, 1, 2700]),
  'nothing': (9, [0, 0]),
  'one run': (130, [130]),
  'few rows': (3, [0, 1, 0, 2]),
}


def random(*shape):
  return jnp.asarray(RNG.normal(size=shape), jnp.float32)


def loop(x, w, sizes):
  """Return the product of each run, one after the other."""
  ends = np.cumsum(sizes)
  parts = [x[end - n : end] @ w[e] for e, (end, n) in enumerate(zip(ends, sizes, strict=True))]
  return jnp.concatenate([*parts, jnp.zeros((len(x) - ends[-1], w.shape[2]))])


@pytest.mark.parametrize('name', SIZES)
def test_grouped_product_matches_a_loop_over_experts(name):
  rows, sizes = SIZES[name]
  x, w, g = random(rows, 6), random(len(sizes), 6, 5), random(rows, 5)
  n = jnp.asarray(sizes, jnp.int32)
  y, back = jax.vjp(jax.jit(lambda x, w: grouped.grouped_product(x, w, n)), x, w)
  expected, expected_back = jax.vjp(lambda x, w: loop(x, w, sizes), x, w)
  np.testing.assert_allclose(y, expected, atol=1e-5)
  for actual, expected_grad in zip(back(g), expected_back(g), strict=True):
    np.testing.assert_allclose(actual, expected_grad, atol=1e-4)
  np.testing.assert_allclose(jax.jit(grouped._ragged_product)(x, w, n), expected, atol=1e-5)
  np.testing.assert_allclose(
    jax.jit(grouped._ragged_input_gradient)(g, w, n), expected_back(g)[0], atol=1e-5
  )
  np.testing.assert_allclose(
    jax.jit(grouped._ragged_weight_gradient)(x, g, n), expected_back(g)[1], atol=1e-4
  )


def test_bfloat16_gradients_accumulate_in_float32():
  x, w, g = (jnp.ones(s, jnp.bfloat16) for s in ((600, 4), (1, 4, 2), (600, 2)))
  n = jnp.asarray([600], jnp.int32)
  _, back = jax.vjp(lambda x, w: grouped.grouped_product(x, w, n), x, w)
  dw = back(g)[1]
  assert dw.dtype == jnp.bfloat16
  np.testing.assert_array_equal(np.asarray(dw, np.float32), np.float32(jnp.bfloat16(600)))


def test_cpu_flops_do_not_grow_with_the_number_of_experts():
  # The program has one piece of each length; experts and rows are loop counts.
  def flops(E):
    shapes = [jax.ShapeDtypeStruct(s, 'f4') for s in ((512, 32), (E, 32, 64))]
    sizes = jax.ShapeDtypeStruct((E,), 'i4')
    grad = jax.grad(lambda x, w, n: jnp.sum(grouped.grouped_product(x, w, n) ** 2), (0, 1))
    return jax.jit(grad).lower(*shapes, sizes).compile().cost_analysis()['flops']

  dense = 3 * 2 * 512 * 32 * 64
  assert flops(2) < 2 * dense
  assert flops(64) < flops(2) + 64 * 3 * 32 * 64
