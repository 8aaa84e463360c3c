"""The Pallas kernel compiles for TPUs, where Mosaic is stricter than the interpreter."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.contracts.cases import mixing
from tests.parts.relatives import attended, started
from tests.tpu.cases import Case, lowered
from tfm.model import transformer
from tfm.parts import mask as masks
from tfm.parts.attend.dropout import Dropout
from tfm.parts.attend.pallas.flash import Pallas
from tfm.parts.attend.views import useful_views
from tfm.parts.context import Dims, Run
from tfm.parts.init import TABLE as INITS
from tfm.parts.mask import Causal, Mask, Segments, Window
from tfm.parts.relative import TUPE, XL, ALiBi, RoPE, Shaw, T5Bias, Toeplitz
from tfm.parts.tokeninfo import TokenInfo

pytestmark = pytest.mark.tpu


CASES = {
  'causal': Case(H=64, Hv=64),
  'full': Case(Mask(), T=1000, K=8),
  'window': Case(Window(256), dtype='float32'),
  'alibi': Case(biases='alibi'),
  't5': Case(Mask(), biases='t5', H=64, Hv=64),
  'cap': Case(cap=30.0, H=256, Hv=256),
  'sink': Case(sink=True, K=1, N=32),
  'dropout': Case(drop=0.1),
  'prefix': Case(masks.Prefix()),
  'one_query': Case(T=1, S=2048),
  'odd_heads': Case(H=72, Hv=40),
  'all_in_float32': Case(
    biases='alibi t5', cap=30.0, sink=True, drop=0.1, H=256, Hv=256, dtype='float32'
  ),
  'bigbird': Case(masks.BigBird(64, 3, 2048)),
  'blocks': Case(masks.Blocks()),
  'lambda': Case(masks.Lambda()),
  'permutation': Case(masks.Permutation()),
  'strided': Case(masks.Strided()),
  'strided_by_views': Case(masks.Strided(), T=8192, drop=0.1, sink=True),
  'dilated': Case(Window(128, step=4), T=4096),
  'fixed': Case(masks.Fixed(), T=4096),
}


@pytest.mark.parametrize('name', CASES)
def test_pallas_kernels_compile_for_a_tpu(name, chips):
  case = CASES[name]
  views = len(useful_views(case.mask, case.T / Pallas().queries))
  assert (
    lowered(case, chips).compile().as_text().count('custom_call_target="tpu_custom_call"')
    == 3 * views
  )


def test_lowering_depends_on_the_target_not_the_host(chips):
  assert jax.default_backend() == 'cpu'
  assert 'tpu_custom_call' in lowered(Case(T=128), chips).as_text()


@pytest.mark.parametrize('T', [16_384, 65_536])
def test_pallas_memory_is_linear_in_the_length(T, chips):
  case = Case(B=1, T=T, biases='alibi')
  compiled = lowered(case, chips).compile()
  # Arrays in the memory of the chip are not counted, so this is an upper bound.
  assert compiled.memory_analysis().temp_size_in_bytes <= 5 * 2 * T * case.N * case.H


@pytest.mark.parametrize(('tensor', 'K'), [(2, 2), (4, 2), (2, 1)])
def test_pallas_over_a_mesh_needs_no_gather(tensor, K, chips):
  shape = (4 // tensor, tensor)
  axes = (jax.sharding.AxisType.Auto,) * 2
  mesh = jax.sharding.Mesh(np.array(chips).reshape(shape), ('data', 'tensor'), axis_types=axes)
  rules = (('B', ('data',)), ('N', ('tensor',)), ('K', ('tensor',) if K % tensor == 0 else ()))
  text = lowered(Case(T=512, K=K, B=4, biases='t5'), chips, mesh, rules).compile().as_text()
  assert text.count('custom_call_target="tpu_custom_call"') == 3
  assert 'all-gather' not in text
  assert 'all-to-all' not in text


def test_scanned_model_compiles_with_pallas(chips):
  spec = mixing(relative=T5Bias(), head_dim=64)
  run = Run(attend=Pallas())
  on_chip = functools.partial(
    jax.ShapeDtypeStruct, sharding=jax.sharding.SingleDeviceSharding(chips[0])
  )
  params = jax.tree.map(lambda x: on_chip(x.shape, x.dtype), transformer.param_shapes(spec))
  loss = lambda p, ids: transformer.apply(spec, p, run=run, input_ids=ids)['logits'].var()
  text = jax.jit(jax.grad(loss)).lower(params, on_chip((2, 256), jnp.int32)).compile().as_text()
  assert 'tpu_custom_call' in text


#: A relative position, and the arguments of `lowered_relative` that differ from its defaults.
RELATIVES = {
  'alibi': (ALiBi(), {}),
  'shaw': (Shaw(), {}),
  'shaw_far': (Shaw(1000), {'cap': 30.0}),
  'xl': (XL(), {'D': 256}),
  'xl_wide': (XL(types=True), {'D': 1024}),
  'xl_in_float32': (XL(), {'D': 1024, 'dtype': 'float32', 'cap': 30.0}),
  'tupe': (TUPE(2048), {'cap': 30.0}),
  'tupe_of_all': (TUPE(2048, reset=False), {'H': 128}),
  'toeplitz': (Toeplitz(), {}),
  'toeplitz_512': (Toeplitz(512), {'cap': 30.0}),
  'toeplitz_1000': (Toeplitz(1000), {'dtype': 'float32'}),
  'rope_far': (RoPE(far=512), {}),
  't5_blocks': (T5Bias(), {'drop': 0.1}),
}


def lowered_relative(
  spec, chips, D=512, H=64, N=8, K=2, B=2, T=2048, dtype='bfloat16', cap=None, drop=0.0
):
  """Return the lowered value and gradients of causal attention with a relative position."""
  like = functools.partial(
    jax.ShapeDtypeStruct, sharding=jax.sharding.SingleDeviceSharding(chips[0])
  )
  dims = Dims(D, 1, INITS['normal'](), Run(), heads=N, head_dim=H)
  params = jax.eval_shape(functools.partial(started, spec, dims), jax.random.key(0))

  def loss(qkv, params, at, key):
    drops = Dropout.of(key, B, N, drop) if drop else None
    fields = {'mask': Causal() & Segments(), 'cap': cap, 'drop': drops, 'ordered': True}
    y = attended(Pallas(), dims, (spec,), (params,), qkv, at, at, **fields).astype(jnp.float32)
    return jnp.sum(y * y)

  ints = like((B, T), jnp.int32)
  return jax.jit(jax.value_and_grad(loss, (0, 1))).lower(
    [like((B, T, n, H), dtype) for n in (N, K, K)],
    jax.tree.map(lambda x: like(x.shape, x.dtype), params),
    TokenInfo(ints, ints, {'type': ints}),
    like((), jax.eval_shape(lambda: jax.random.key(0)).dtype),
  )


@pytest.mark.parametrize('name', RELATIVES)
def test_relative_positions_compile_for_a_tpu(name, chips):
  spec, sizes = RELATIVES[name]
  text = lowered_relative(spec, chips, **sizes).compile().as_text()
  assert text.count('custom_call_target="tpu_custom_call"') == 3
