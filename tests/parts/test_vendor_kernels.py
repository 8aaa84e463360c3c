"""Vendor kernels (cuDNN, splash) match dense attention or reject the call."""

import types

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parts.attending import random_qkv, run_kernel
from tfm.core import config, errors
from tfm.model import transformer
from tfm.parts import mask as masks
from tfm.parts.attend import TABLE, cudnn
from tfm.parts.attend.base import Attend, Scores
from tfm.parts.attend.cudnn import Cudnn
from tfm.parts.attend.dense import DenseAttention
from tfm.parts.attend.dropout import Dropout
from tfm.parts.attend.splash import Splash
from tfm.parts.attend.value_table import ValueTable
from tfm.parts.context import Run
from tfm.parts.mask import Causal, Mask, Segments, Window
from tfm.parts.relative.toeplitz import distance
from tfm.parts.tokeninfo import TokenInfo, positions
from tfm.zoo import get, tiny

B, N, K, H, T = 2, 4, 2, 8, 20
SPLASH = Splash(128, 128, interpret=True)
CAUSAL = Causal() & Segments()


class CudnnByXla(Attend):
  """cuDNN's arguments, run with the XLA implementation of the same function."""

  def __call__(self, q_BTNH, k_BSKH, v_BSKH, q, k, scores, reduce):
    return cudnn.fused_attention(q_BTNH, k_BSKH, v_BSKH, q, k, scores, 'xla')


def info(n, packed=True):
  """Return two documents with padding around and between, and one with padding inside."""
  at = np.arange(n)
  segment = np.stack(
    [np.where(at < n // 2, 1, 2) * (at > 1) * (at != n // 2) * (at < n - 3), at % 5 != 3]
  )
  whole = np.maximum(np.cumsum(segment[1]) - 1, 0)
  pos = positions(jnp.asarray(segment)).at[1].set(whole)
  return TokenInfo(pos, jnp.asarray(segment, jnp.int32))


WINDOW = {'mask': Causal() & Window(9)}
CASES = {
  'splash causal': (SPLASH, {'mask': Causal()}, 21, 21, 8),
  'splash full, fewer queries than keys, narrow values': (SPLASH, {}, 17, 33, 5),
  'splash window over tiles, cap, sink': (
    Splash(256, 128, interpret=True), WINDOW | {'cap': 2.0, 'sink': True}, 150, 150, 8),
  'cudnn causal': (CudnnByXla(), {'mask': Causal()}, T, T, 8),
  'cudnn full, fewer queries than keys': (CudnnByXla(), {}, 16, 34, 8),
  'cudnn window': (CudnnByXla(), WINDOW, 34, 34, 8),
  'cudnn strided': (CudnnByXla(), {'mask': masks.Strided(5)}, 34, 34, 8),
}  # fmt: skip


@pytest.mark.parametrize('name', CASES)
@pytest.mark.large(when=lambda name: name.startswith(('splash window', 'splash full')))
def test_vendor_kernels_match_the_dense_kernel(name):
  kernel, case, T, S, wide = CASES[name]
  actual, expected = (
    run_kernel(k, case, T, S, wide=wide, info=info) for k in (kernel, DenseAttention())
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5, rtol=1e-5), actual, expected
  )
  padding = np.asarray(info(T).segment_ids) == 0
  for a in (actual[0], actual[1][0]):
    assert not np.any(np.asarray(a)[padding])


def test_splash_without_segments_uses_full_attention():
  x, at = random_qkv(5, 5), info(5)
  run = lambda kernel: jax.jit(lambda *x: kernel(*x, at, at, Scores(1e4, Mask()), 'float32'))(*x)
  y, expected = (run(kernel) for kernel in (SPLASH, DenseAttention()))
  assert np.isfinite(y).all()
  np.testing.assert_allclose(y, expected, atol=1e-5)


def test_kernel_is_sharded_over_batch_and_heads():
  mesh = jax.sharding.Mesh(
    np.array(jax.devices()).reshape(2, 4),
    ('data', 'tensor'),
    axis_types=(jax.sharding.AxisType.Auto,) * 2,
  )
  rules = [('B', ('data',)), ('N', ('tensor',)), ('K', ())]
  at = info(T)
  draw = lambda i, heads: jax.random.normal(jax.random.key(i), (B, T, heads, H))

  def program(kernel, *x):
    return kernel(*x[:3], at, at, Scores(0.3, CAUSAL, sink_N=x[3], ordered=True), 'float32')

  def split(*x):
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh), nn.logical_axis_rules(rules):
      return program(SPLASH, *x)

  x = draw(0, N), draw(1, K), draw(2, K), jnp.linspace(-1.0, 1.0, N)
  actual = jax.jit(split)(*jax.device_put(x, jax.NamedSharding(mesh, jax.P())))
  np.testing.assert_allclose(actual, program(DenseAttention(), *x), atol=1e-5)


def test_splash_in_a_model_and_unordered_positions():
  spec = tiny(get('llama2-70b'))
  run = config.override(Run(), 'attend', 'splash')
  params = transformer.init(spec, jax.random.key(0))
  ids = jnp.arange(12).reshape(2, 6)
  logits = lambda run: jax.jit(
    lambda p: transformer.apply(spec, p, run=run, input_ids=ids)['logits']
  )(params)
  np.testing.assert_allclose(logits(run), logits(Run(attend=DenseAttention())), atol=1e-5)
  by_hand = lambda p: transformer.apply(spec, p, run=run, input_ids=ids, position_ids=ids)
  with pytest.raises(
    errors.UserError, match=r'attend=splash: a band must be causal.* Expected attend=blockwise'
  ):
    jax.eval_shape(by_hand, params)


BIAS = lambda q, k: jnp.zeros((1, N, T, T))
CONTENT = lambda q_BTNH, k_BSKH, q, k: jnp.zeros((B, N, T, T))
TABLES = (ValueTable(lambda q, k: distance(q.rows(), k.columns(), 2), jnp.zeros((5, H))),)
ORDER = info(T).with_extras(order=jnp.zeros((B, T), jnp.int32), bound=jnp.ones((B, T), jnp.int32))


class Undeclared(Mask):
  """A causal mask without a declared band."""

  def __call__(self, q, k):
    return k.positions <= q.positions


ORDERED = {'ordered': True}
DROPOUT = Dropout.of(jax.random.key(0), B, N, 0.1)
NO_SPLASH = {
  'does not support biases': (Scores(1.0, CAUSAL, (BIAS,), **ORDERED), {}),
  'does not support content terms': (Scores(1.0, CAUSAL, (), (CONTENT,), **ORDERED), {}),
  'position vectors of values': (Scores(1.0, CAUSAL, value_tables=TABLES, **ORDERED), {}),
  'does not support dropout': (
    Scores(1.0, CAUSAL, drop=Dropout.of(jax.random.key(0), B, N, 0.1), **ORDERED), {}),
  'float16 is neither float32 nor bfloat16': (
    Scores(1.0, CAUSAL, **ORDERED), {'dtype': jnp.float16}),
  'the mask is not a band': (Scores(1.0, masks.Strided(3) & Segments(), **ORDERED), {}),
  'is not a band of distances': (Scores(1.0, Undeclared() & Segments(), **ORDERED), {}),
  'does not support a prediction order': (Scores(1.0, CAUSAL, **ORDERED), {'at': ORDER}),
  'a band must be causal': (Scores(1.0, CAUSAL), {}),
}  # fmt: skip
HALF = {'dtype': jnp.bfloat16}
NO_CUDNN = {
  'biases would be arrays': (Scores(1.0, CAUSAL, (BIAS,)), HALF),
  'does not support content terms': (Scores(1.0, CAUSAL, (), (CONTENT,)), HALF),
  'position vectors of values': (Scores(1.0, CAUSAL, value_tables=TABLES), HALF),
  'does not support a score cap': (Scores(1.0, CAUSAL, cap=2.0), HALF),
  'does not support a sink': (Scores(1.0, CAUSAL, sink_N=jnp.zeros(N)), HALF),
  'does not support dropout': (
    Scores(1.0, CAUSAL, drop=Dropout.of(jax.random.key(0), B, N, 0.1)),
    HALF,
  ),
  'float32 is neither bfloat16 nor float16': (Scores(1.0, CAUSAL), {}),
  'values of size 5 differ from keys of size 8': (Scores(1.0, CAUSAL), HALF | {'wide': 5}),
  'head size 136 is not a multiple of 8 up to 128': (
    Scores(1.0, CAUSAL),
    HALF | {'H': 136, 'wide': 136},
  ),
  'head size 12 is not a multiple of 8': (
    Scores(1.0, CAUSAL),
    HALF | {'H': 12, 'wide': 12},
  ),
  '19 queries and 19 keys are not both even': (Scores(1.0, CAUSAL), HALF | {'T': 19}),
  'its kernels are for GPUs, and this is a cpu': (Scores(1.0, CAUSAL), HALF),
}
UNSUPPORTED = [
  pytest.param(kernel, reason, call, id=f'kernel={kernel}-reason={reason}')
  for kernel, calls in (('splash', NO_SPLASH), ('cudnn', NO_CUDNN))
  for reason, call in calls.items()
]


@pytest.mark.parametrize(('name', 'reason', 'call'), UNSUPPORTED)
def test_unsupported_vendor_calls_are_errors_with_the_reason(name, reason, call):
  scores, given = call
  n, H_ = given.get('T', T), given.get('H', H)
  like = lambda heads, wide: jax.ShapeDtypeStruct(
    (B, n, heads, wide), given.get('dtype', jnp.float32)
  )
  at = given.get('at', info(n))
  x = like(N, H_), like(K, H_), like(K, given.get('wide', H)), at, at, scores
  assert reason in TABLE[name]().refuses(*x)
  with pytest.raises(
    errors.UserError,
    match=rf'attend={name}: .*{reason}.*\. Expected attend=blockwise, which supports',
  ):
    TABLE[name]()(*x, 'float32')


def test_invalid_splash_tiles_are_errors():
  with pytest.raises(
    errors.ConfigError,
    match=r'queries=512, keys=64 are not tile sizes of splash. Expected multiples of',
  ):
    config.validate(Splash(keys=64))


@pytest.mark.parametrize(
  ('version', 'capability', 'why'),
  [
    ('PJRT C API\ncuda 12090', '8.0', None),
    ('PJRT C API\ncuda 12090', '7.5', 'A chip is older than compute capability 8.0'),
    ('PJRT C API\nrocm 60300', '9.4', 'its kernels are for NVIDIA GPUs, and this is A chip'),
  ],
)  # fmt: skip
def test_cudnn_checks_the_gpu(version, capability, why, monkeypatch):
  client = types.SimpleNamespace(platform_version=version)
  chip = types.SimpleNamespace(client=client, compute_capability=capability, device_kind='A chip')
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  monkeypatch.setattr(jax, 'local_devices', lambda: [chip])
  assert cudnn.missing_support() == why


def test_cudnn_lowers_for_cuda_with_grouped_heads_and_causal(
  monkeypatch,
):
  # Pretend to be a machine with CUDA.
  monkeypatch.setattr(
    'jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version', lambda: 9_10_00
  )
  monkeypatch.setattr(cudnn, 'missing_support', lambda: None)
  like = lambda heads: jax.ShapeDtypeStruct((B, T, heads, 64), jnp.bfloat16)
  at = jax.eval_shape(lambda: info(T))

  def loss(q, k, v, at):
    scores = Scores(0.3, Window(4) & CAUSAL, ordered=True)
    return jnp.square(Cudnn()(q, k, v, at, at, scores, 'float32')).astype(jnp.float32).sum()

  names = '__cudnn$fmhaScaleBiasSoftmax', '__cudnn$fmhaScaleBiasSoftmaxBackward'
  unchecked = [jax.export.DisabledSafetyCheck.custom_call(name) for name in names]
  program = jax.export.export(
    jax.jit(jax.grad(loss, range(3))), platforms=['cuda'], disabled_checks=unchecked
  )
  text = program(like(N), like(K), like(K), at).mlir_module()
  calls = [line for line in text.splitlines() if '@__cudnn' in line]
  assert [name in line for name, line in zip(names, calls, strict=True)] == [True, True]
  for line in calls:
    assert r'\22mask_type\22: \22CAUSAL\22' in line
    assert r'\22sliding_window_length\22: 0' in line
    assert f'tensor<{B}x{T}x{K}x64xbf16>, tensor<{B}x{T}x{K}x64xbf16>' in line
    assert f'tensor<{B}x1x{T}x{T}xbf16>' in line
