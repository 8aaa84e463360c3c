import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.contracts.cases import decoder, mixing
from tfm.core.precision import Precision
from tfm.model import transformer
from tfm.model.spec import Block
from tfm.parts.context import Run
from tfm.parts.ffn import Glu, Moe
from tfm.parts.ffn.sliced import Slicing, on_device, slice_count, sliced_glu
from tfm.parts.mixer import Attention
from tfm.train.mesh import Mesh
from tfm.train.shard import make_mesh, replicated, with_rules

T, D, F = 6, 8, 24


def _arrays(*shapes):
  normal = lambda i, shape: 0.3 * jax.random.normal(jax.random.key(i), shape)
  return tuple(normal(i, shape) for i, shape in enumerate(shapes))


def _hidden(gate, up):
  return jax.nn.silu(gate) * up


def _check(expected, got, args):
  grads = [jax.jit(jax.value_and_grad(f, argnums=range(len(args))))(*args) for f in (got, expected)]
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), *grads)


@pytest.mark.parametrize('mesh', [None, Mesh(fsdp=4, tensor=2)])
def test_sliced_gradients_match_the_plain_network(mesh):
  args = _arrays((4, T, D), (D, F), (D, F), (F, D))
  plain = lambda x, g, u, d: jnp.sin(_hidden(x @ g, x @ u) @ d).sum()
  sliced = lambda x, *w: jnp.sin(sliced_glu(Slicing(_hidden, 3), x, w)).sum()
  if mesh is not None:
    devices = make_mesh(mesh)
    sliced = with_rules(devices, mesh.table(), sliced)
    args = jax.device_put(args, replicated(devices))
  _check(plain, sliced, args)


def test_sliced_experts_match_plain_experts():
  sizes = jnp.array([3, 0, 2])
  args = _arrays((T, D), (3, D, F), (3, D, F), (3, F, D), (T, 1))
  expert = jnp.array([0, 0, 0, 2, 2, 2])

  def plain(x, g, u, d, scale):
    product = lambda x, w: jnp.einsum('ri,rio->ro', x, w[expert])
    y = product(_hidden(product(x, g), product(x, u)), d) * scale
    return jnp.sin(y[:5]).sum()

  def sliced(x, g, u, d, scale):
    return jnp.sin(sliced_glu(Slicing(_hidden, 4), x, (g, u, d), sizes, scale)[:5]).sum()

  _check(plain, sliced, args)


def test_slices_divide_the_hidden_units():
  assert slice_count(8, 10, 'float32', 4) == 5
  assert slice_count(8, 7, 'float32', 2) == 1
  assert slice_count(8, 7, 'float32', 1) == 1


def test_default_slices_large_hidden_layers_only():
  assert slice_count(8192, 1024, 'bfloat16', None) == 1
  assert slice_count(8192, 14_336, 'bfloat16', None) == 4
  assert slice_count(32_768, 28_672, 'bfloat16', None) == 8


def test_hidden_layer_on_a_device_follows_the_mesh():
  mesh = Mesh(fsdp=4, tensor=2)
  assert with_rules(make_mesh(mesh), mesh.table(), functools.partial(on_device, (8, T), F))() == (
    2 * T,
    F // 2,
  )


def _loss_and_gradient(spec, params, run, mesh):
  ids = jax.random.randint(jax.random.key(1), (8, 16), 0, spec.vocab)
  loss = lambda p: jnp.sin(transformer.apply(spec, p, run=run, input_ids=ids)['logits']).sum()
  fn = jax.value_and_grad(loss)
  if mesh is not None:
    devices = make_mesh(mesh)
    fn, params = with_rules(devices, mesh.table(), fn), jax.device_put(params, replicated(devices))
  return jax.jit(fn)(params)


@pytest.mark.parametrize(('moe', 'mesh'), [(False, None), (True, Mesh(fsdp=4, tensor=2))])
def test_full_remat_by_slices_matches_no_remat(moe, mesh):
  ffn = Moe(4, expert=Glu(48)) if moe else Glu(48)
  spec = decoder(Block(Attention(4, 2, 8), ffn))
  params = transformer.init(spec, jax.random.key(0))
  expected = _loss_and_gradient(spec, params, Run(), None)
  got = _loss_and_gradient(spec, params, Run(remat='full', ffn_slices=2), mesh)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), got, expected)


def test_casts_of_one_layer_at_a_time_change_no_result():
  spec = mixing()
  params = transformer.init(spec, jax.random.key(0))
  run = Run(Precision(compute='bfloat16'), remat='full')
  got, expected = (
    _loss_and_gradient(spec, params, r, None) for r in (run, Run(run.precision, remat='dots'))
  )
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-2, atol=2e-2), got, expected)
