"""Vendor kernels match the dense kernel in values and gradients, or raise an error."""

import types

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parts.attending import attended, drawn
from tfm.core import config, errors
from tfm.model import transformer
from tfm.parts import mask as masks
from tfm.parts.attend import TABLE, cudnn
from tfm.parts.attend.added import Added
from tfm.parts.attend.base import Attend, Scores
from tfm.parts.attend.cudnn import Cudnn
from tfm.parts.attend.dense import DenseAttention
from tfm.parts.attend.dropout import Dropout
from tfm.parts.attend.splash import Splash
from tfm.parts.context import Run
from tfm.parts.mask import Causal, Mask, Segments, Window
from tfm.parts.relative.toeplitz import distance
from tfm.parts.tokeninfo import TokenInfo, positions
from tfm.zoo import get, tiny

B, N, K, H, T = 2, 4, 2, 8, 20
SPLASH = Splash(128, 128, interpret=True)
CAUSAL = Causal() & Segments()


class XlaCudnn(Attend):
  """Call the function of `cudnn` with JAX's XLA implementation."""

  def __call__(self, q_BTNH, k_BSKH, v_BSKH, q, k, scores, reduce):
    return cudnn.attended(q_BTNH, k_BSKH, v_BSKH, q, k, scores, 'xla')


def info(n, packed=True):
  """Return a batch of two packed documents with padding, and one with padding in between."""
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
  'cudnn causal': (XlaCudnn(), {'mask': Causal()}, T, T, 8),
  'cudnn full, fewer queries than keys': (XlaCudnn(), {}, 16, 34, 8),
  'cudnn window': (XlaCudnn(), WINDOW, 34, 34, 8),
  'cudnn strided': (XlaCudnn(), {'mask': masks.Strided(5)}, 34, 34, 8),
}  # fmt: skip


@pytest.mark.parametrize('name', CASES)
@pytest.mark.large(when=lambda name: name.startswith(('splash window', 'splash full')))
def test_vendor_kernels_match_the_dense_kernel(name):
  kernel, case, T, S, wide = CASES[name]
  actual, expected = (
    attended(k, case, T, S, wide=wide, info=info) for k in (kernel, DenseAttention())
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5, rtol=1e-5), actual, expected
  )
  unseen = np.asarray(info(T).segment_ids) == 0
  for a in (actual[0], actual[1][0]):
    assert not np.any(np.asarray(a)[unseen])


def test_splash_without_segments_attends_to_all_tokens():
  x, at = drawn(5, 5), info(5)
  run = lambda kernel: jax.jit(lambda *x: kernel(*x, at, at, Scores(1e4, Mask()), 'float32'))(*x)
  y, expected = (run(kernel) for kernel in (SPLASH, DenseAttention()))
  assert np.isfinite(y).all()
  np.testing.assert_allclose(y, expected, atol=1e-5)


def test_splash_over_a_mesh_equals_the_dense_kernel():
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


def test_model_runs_with_splash_but_not_with_position_ids():
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
    errors.UserError, match=r'attend=splash: it counts places .* Expected attend=blockwise'
  ):
    jax.eval_shape(by_hand, params)


BIAS = lambda q, k: jnp.zeros((1, N, T, T))
CONTENT = lambda q_BTNH, k_BSKH, q, k: jnp.zeros((B, N, T, T))
ADDED = (Added(lambda q, k: distance(q.rows(), k.columns(), 2), jnp.zeros((5, H))),)
ORDER = info(T).with_extras(order=jnp.zeros((B, T), jnp.int32), bound=jnp.ones((B, T), jnp.int32))


class Undeclared(Mask):
  """Causal mask without a declared band."""

  def __call__(self, q, k):
    return k.positions <= q.positions


ORDERED = {'ordered': True}
DROPOUT = Dropout.of(jax.random.key(0), B, N, 0.1)
NO_SPLASH = {
  'biases are not': (Scores(1.0, CAUSAL, (BIAS,), **ORDERED), {}),
  'scores by content': (Scores(1.0, CAUSAL, (), (CONTENT,), **ORDERED), {}),
  'vectors that are added to values': (Scores(1.0, CAUSAL, added=ADDED, **ORDERED), {}),
  'it has no dropout': (Scores(1.0, CAUSAL, drop=DROPOUT, **ORDERED), {}),
  'float16 is neither float32 nor bfloat16': (
    Scores(1.0, CAUSAL, **ORDERED), {'dtype': jnp.float16}
  ),
  'the mask declares no band': (Scores(1.0, masks.Strided(3) & Segments(), **ORDERED), {}),
  'declares no band of distances': (Scores(1.0, Undeclared() & Segments(), **ORDERED), {}),
  'the tokens have an order of prediction': (Scores(1.0, CAUSAL, **ORDERED), {'at': ORDER}),
  'it counts places in the row': (Scores(1.0, CAUSAL), {}),
}  # fmt: skip
HALF = {'dtype': jnp.bfloat16}
NO_CUDNN = {
  'biases would be arrays': (Scores(1.0, CAUSAL, (BIAS,)), HALF),
  'scores by content': (Scores(1.0, CAUSAL, (), (CONTENT,)), HALF),
  'vectors that are added to values': (Scores(1.0, CAUSAL, added=ADDED), HALF),
  'it has no cap': (Scores(1.0, CAUSAL, cap=2.0), HALF),
  'it has no sink': (Scores(1.0, CAUSAL, sink_N=jnp.zeros(N)), HALF),
  'has of it has no dropout': (Scores(1.0, CAUSAL, drop=DROPOUT), HALF),
  'float32 is neither bfloat16 nor float16': (Scores(1.0, CAUSAL), {}),
  'values of 5 numbers are not as wide as keys of 8': (Scores(1.0, CAUSAL), HALF | {'wide': 5}),
  'heads of 136 numbers are not a multiple of 8 up to 128': (
    Scores(1.0, CAUSAL),
    HALF | {'H': 136, 'wide': 136},
  ),
  'heads of 12 numbers are not a multiple of 8': (
    Scores(1.0, CAUSAL),
    HALF | {'H': 12, 'wide': 12},
  ),
  'of 19 queries and 19 keys one number is odd': (Scores(1.0, CAUSAL), HALF | {'T': 19}),
  'its kernels are for GPUs, and this is a cpu': (Scores(1.0, CAUSAL), HALF),
}
UNSUPPORTED = [
  pytest.param(kernel, why, case, id=f'kernel={kernel}-why={why}')
  for kernel, cases in (('splash', NO_SPLASH), ('cudnn', NO_CUDNN))
  for why, case in cases.items()
]


@pytest.mark.parametrize(('kernel', 'why', 'case'), UNSUPPORTED)
def test_unsupported_features_are_errors_with_a_reason(kernel, why, case):
  scores, given = case
  n, H_ = given.get('T', T), given.get('H', H)
  like = lambda heads, wide: jax.ShapeDtypeStruct(
    (B, n, heads, wide), given.get('dtype', jnp.float32)
  )
  at = given.get('at', info(n))
  x = like(N, H_), like(K, H_), like(K, given.get('wide', H)), at, at, scores
  assert why in TABLE[kernel]().refuses(*x)
  with pytest.raises(
    errors.UserError,
    match=rf'attend={kernel}: .*{why}.*\. Expected attend=blockwise, which takes any',
  ):
    TABLE[kernel]()(*x, 'float32')


def test_wrong_splash_tiles_are_errors():
  with pytest.raises(
    errors.ConfigError,
    match=r'queries=512, keys=64 cannot be tiles of splash. Expected multiples of',
  ):
    config.validate(Splash(keys=64))


@pytest.mark.parametrize(
  ('version', 'capability', 'why'),
  [
    ('PJRT C API\ncuda 12090', '8.0', None),
    (
      'PJRT C API\ncuda 12090', '7.5',
      'compute capability 8.0 and later, and that of A chip is less',
    ),
    ('PJRT C API\nrocm 60300', '9.4', 'GPUs of NVIDIA, and this is A chip'),
  ],
)  # fmt: skip
def test_cudnn_requires_a_supported_gpu(version, capability, why, monkeypatch):
  client = types.SimpleNamespace(platform_version=version)
  chip = types.SimpleNamespace(client=client, compute_capability=capability, device_kind='A chip')
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  monkeypatch.setattr(jax, 'local_devices', lambda: [chip])
  assert cudnn.lacking() == (why and f'its kernels are for {why}')


def test_cudnn_lowers_to_a_causal_kernel_with_grouped_heads(
  monkeypatch,
):
  # Pretend that cuDNN is installed.
  monkeypatch.setattr(
    'jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version', lambda: 9_10_00
  )
  monkeypatch.setattr(cudnn, 'lacking', lambda: None)
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
