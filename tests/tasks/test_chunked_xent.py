import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm.core import config, errors
from tfm.parts.head.factors import LogitFactors
from tfm.tasks import CausalLM
from tfm.tasks.chunked_xent import WHOLE_BYTES, chunk_size, chunked_cross_entropy
from tfm.tasks.xent import Target, cross_entropy
from tfm.train.experiment import Experiment
from tfm.train.mesh import Mesh
from tfm.train.shard import make_mesh, replicated, with_rules

B, T, D, V = 8, 6, 16, 22


def _factors(letters='VD', bias=False, cap=None, dtype=jnp.float32):
  x, w, b = (
    jax.random.normal(jax.random.key(i), s) for i, s in enumerate([(B, T, D), (V, D), (V,)])
  )
  w = w if letters == 'VD' else w.T
  factors = LogitFactors(x, w, b if bias else None, letters, cap)
  return jax.tree.map(lambda a: a.astype(dtype), factors)


def _outputs(loss, factors):
  """Return loss, metrics and gradients for a weighted sum of `loss`."""
  labels = jax.random.randint(jax.random.key(9), (B, T), 0, V)

  def total(factors):
    ce = loss(factors, labels)
    return (ce.loss * jnp.arange(float(T))[None]).sum(), ce

  return jax.value_and_grad(total, has_aux=True)(factors)


def _check(factors, chunk, options=(), mesh=None):
  whole = lambda f, y: cross_entropy(f.logits(), y, *options)
  chunked = lambda f, y: chunked_cross_entropy(f, y, Target.of(V, *options), chunk)
  expected = jax.jit(functools.partial(_outputs, whole))(factors)
  fn = functools.partial(_outputs, chunked)
  if mesh is not None:
    devices = make_mesh(mesh)
    fn, factors = (
      with_rules(devices, mesh.table(), fn),
      jax.device_put(factors, replicated(devices)),
    )
  got = jax.jit(fn)(factors)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), got, expected)


@pytest.mark.parametrize('chunk', [5, 11, 21])
@pytest.mark.parametrize('letters', ['VD', 'DV'])
def test_chunks_give_loss_metrics_and_gradients_of_the_whole(letters, chunk):
  _check(_factors(letters), chunk)


@pytest.mark.parametrize('options', [(0.1, True, 0.0), (0.1, False, 0.0), (0.2, False, 1e-2)])
def test_chunks_support_smoothing_and_z_loss(options):
  _check(_factors(), 6, options)


@pytest.mark.parametrize('letters', ['VD', 'DV'])
def test_chunks_support_bias_and_soft_cap(letters):
  _check(_factors(letters, bias=True, cap=2.0), 6, (0.1, True, 1e-3))


@pytest.mark.parametrize('letters', ['VD', 'DV'])
@pytest.mark.parametrize(
  'mesh', [Mesh(fsdp=4, tensor=2), Mesh(data=4, sequence=2, rules=('T:sequence',))]
)
def test_chunks_over_a_mesh_match_one_device(mesh, letters):
  _check(_factors(letters, bias=True), 10, mesh=mesh)


def test_bfloat16_chunks_are_closer_to_float32_than_the_whole():
  factors, labels = _factors(dtype=jnp.bfloat16), jnp.zeros((B, T), int)
  exact = cross_entropy(jax.tree.map(lambda a: a.astype('float32'), factors).logits(), labels).nll
  chunked = chunked_cross_entropy(factors, labels, Target.of(V), 5).nll
  whole = cross_entropy(factors.logits(), labels).nll
  assert jnp.abs(chunked - exact).max() < jnp.abs(whole - exact).max() / 100


def _shapes(B, T, D, V, dtype=jnp.float32):
  x, w = (jax.ShapeDtypeStruct(shape, dtype) for shape in [(B, T, D), (V, D)])
  return LogitFactors(x, w, letters='VD')


def test_no_logits_are_stored():
  B, T, V = 2, 16, 4096
  labels = jax.ShapeDtypeStruct((B, T), jnp.int32)
  loss = lambda f, y: chunked_cross_entropy(f, y, Target.of(V), 256).loss.sum()
  step = jax.jit(jax.value_and_grad(loss)).lower(_shapes(B, T, 8, V), labels)
  compiled = step.compile({'xla_backend_optimization_level': 2})
  assert compiled.memory_analysis().temp_size_in_bytes < 4 * B * T * V


def test_default_chunks_large_logits_only():
  assert chunk_size(_shapes(8, 1024, 8, 8000), None) == 0
  large = _shapes(8, 1024, 8, 128_000)
  assert chunk_size(large, None) == WHOLE_BYTES // 2 // (4 * 8 * 1024)
  assert chunk_size(large, 0) == 0
  assert chunk_size(_shapes(1, 8, 8, 128), 64) == 64
  assert chunk_size(_shapes(1, 8, 8, 128), 1000) == 0


def test_default_chunks_depend_on_the_share_of_a_device():
  mesh = Mesh(fsdp=8)
  size = lambda: chunk_size(_shapes(8, 1024, 8, 128_000), None)
  assert with_rules(make_mesh(mesh), mesh.table(), size)() == 0


def test_chunks_are_refused_for_heads_that_return_logits():
  forward = lambda **_: {'logits': jnp.zeros((1, 2, 8))}
  batch = {'input_ids': jnp.zeros((1, 2), int), 'labels': jnp.zeros((1, 2), int)}
  batch |= {'weights': jnp.ones((1, 2))}
  with pytest.raises(errors.UserError, match=r'task\.loss_chunk: is 4, but the head has'):
    CausalLM(loss_chunk=4).loss(forward, batch, None)
  assert CausalLM().loss(forward, batch, None)['loss'].weight == 2


def test_sizes_of_chunks_and_slices_are_checked():
  with pytest.raises(errors.ConfigError, match=r'loss_chunk: is -1\. Expected 0 or more'):
    config.validate(CausalLM(loss_chunk=-1))
  with pytest.raises(errors.ConfigError, match=r'ffn_slices: is 0\. Expected 1 or more'):
    config.validate(Experiment(ffn_slices=0))
