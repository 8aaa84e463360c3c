"""Closure conversion: values, gradients and inlining."""

import jax
import jax.numpy as jnp
import numpy as np

from tfm.core.closures import bind, convert, flatten, read

X = jnp.arange(3.0)


def closure(w, shift):
  return lambda x: {'y': w * x, 'shifted': jnp.take(x, shift)}


def test_converted_function_equals_the_original():
  w, shift = jnp.asarray([1.0, 2.0, 3.0]), jnp.asarray([2, 0, 1])
  pure, smooth, fixed = convert(closure(w, shift), X)
  assert [a.dtype for a in smooth] == [jnp.float32]
  assert [a.dtype for a in fixed] == [jnp.int32]
  jax.tree.map(np.testing.assert_array_equal, pure(smooth, fixed, 2 * X), closure(w, shift)(2 * X))
  moved = pure([2 * a for a in smooth], fixed, X)
  np.testing.assert_array_equal(moved['y'], 2 * w * X)


def test_traced_arrays_become_arguments_and_get_gradients():
  @jax.custom_vjp
  def doubled(smooth, fixed, x):
    raise AssertionError('only its VJP is called')

  def loss(w, shift):
    pure, smooth, fixed = convert(closure(w, shift), X)
    assert isinstance(smooth[0], jax.core.Tracer)
    assert isinstance(fixed[0], jax.core.Tracer)

    def forward(smooth, fixed, x):
      y, pull = jax.vjp(lambda s: pure(s, fixed, x)['y'], smooth)
      return y, pull

    doubled.defvjp(forward, lambda pull, g: (*pull(2 * g), None, None))
    return doubled(smooth, fixed, X).sum()

  grad = jax.jit(jax.grad(loss))(jnp.ones(3), jnp.asarray([0, 1, 2]))
  np.testing.assert_array_equal(grad, 2 * X)


def test_flat_steps_contain_no_calls_and_give_the_same_result():
  table = jnp.asarray([1.0, 2.0, 4.0])
  inner = jax.jit(lambda x: jax.nn.relu(x - 1) * table)
  f = lambda x: inner(x) + jax.jit(jnp.cos)(x)
  flat = flatten(f, X)
  assert not {eqn.primitive.name for eqn in flat.steps} & {'jit', 'pjit', 'custom_jvp_call'}
  env = {**flat.known, flat.inputs[0]: X}
  for eqn in flat.steps:
    env.update(zip(eqn.outvars, bind(eqn, [read(env, a) for a in eqn.invars]), strict=True))
  np.testing.assert_allclose(read(env, flat.outputs[0]), f(X), rtol=1e-6)
  assert any(np.array_equal(a, table) for a in flat.known.values())
