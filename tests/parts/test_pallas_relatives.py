"""The interpreted TPU kernel matches dense attention for every relative position."""

import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.contracts.cases import decoder
from tests.parts.relatives import attended, started
from tfm.model import transformer
from tfm.model.spec import Block
from tfm.parts.attend.base import Scores
from tfm.parts.attend.dense import DenseAttention
from tfm.parts.attend.dropout import Dropout
from tfm.parts.attend.pallas.flash import Pallas
from tfm.parts.context import Dims, Run
from tfm.parts.ffn import Glu
from tfm.parts.init import TABLE as INITS
from tfm.parts.mask import TABLE as MASKS
from tfm.parts.mask import Causal, Segments, Strided, Window
from tfm.parts.mixer import Attention
from tfm.parts.mixer.disentangled import Distances
from tfm.parts.relative import TABLE, TUPE, XL, RoPE, Shaw, Toeplitz
from tfm.parts.term import KeyLookup, QueryLookup
from tfm.parts.tokeninfo import TokenInfo

B, N, K, H, T = 2, 4, 2, 8, 37
DIMS = Dims(12, 1, INITS['normal'](), Run(), heads=N, head_dim=H, causal=False)
KERNEL = Pallas(8, 16, interpret=True)


def info(n=T, spread=1):
  """Return two documents with padding on the right, and one with padding on the left."""
  pos, segment = np.tile(np.arange(n), (B, 1)) * spread, np.ones((B, n), int)
  pos[0, 20:] -= 20 * spread
  segment[0, 20:] = 2
  segment[0, -2:] = 0
  segment[1, :3] = 0
  pos[1] = np.maximum(pos[1] - 3 * spread, 0)
  return TokenInfo(jnp.asarray(pos), jnp.asarray(segment), {'type': jnp.asarray(pos % 2)})


def results(kernel, specs, fields, at, qkv, params, sink):
  """Return the output, and the gradients of q, k, v, parameters and sink."""

  def loss(qkv, params, sink):
    y = attended(
      kernel, DIMS, specs, params, qkv, at, at, sink_N=sink, **{'mask': Segments(), **fields}
    )
    return (y * jnp.cos(jnp.arange(y.size).reshape(y.shape))).sum(), y

  grads, y = jax.grad(loss, (0, 1, 2), has_aux=True)(qkv, params, sink)
  return y, grads


def random_qkv(kv=K, dtype=jnp.float32):
  return [
    jax.random.normal(jax.random.key(i), (B, T, n, H)).astype(dtype)
    for i, n in enumerate((N, kv, kv))
  ]


def both(specs, fields=None, at=None, kv=K, dtype=jnp.float32, sink=None, kernel=KERNEL):
  """Return the results of the kernel and of dense attention."""
  at, fields = at or info(), fields or {}
  params = [started(spec, DIMS, jax.random.key(0)) for spec in specs]
  params = jax.tree.map(lambda x: 0.5 * jax.random.normal(jax.random.key(x.size), x.shape), params)
  run = lambda kernel: jax.jit(lambda *x: results(kernel, specs, fields, at, *x))(
    random_qkv(kv, dtype), params, sink
  )
  return run(kernel), run(DenseAttention())


def assert_matches_dense(*args, tolerance=3e-5, **more):
  close = functools.partial(np.testing.assert_allclose, atol=tolerance, rtol=tolerance)
  jax.tree.map(close, *both(*args, **more))


#: Every relative position, and some with other fields.
RELATIVES = {name: row() for name, row in TABLE.items()} | {
  'shaw-3': Shaw(3),
  'xl-types': XL(types=True),
  'tupe-of-all': TUPE(reset=False),
  'toeplitz-512': Toeplitz(512),
  'toeplitz-1000': Toeplitz(1000),
  'rope-far': RoPE(far=4),
}
#: The masks to combine them with, in turn.
MASKS_IN_TURN = [
  row() & Segments() for name, row in MASKS.items() if name not in ('both', 'prefix', 'segments')
]


@pytest.mark.parametrize('name', RELATIVES)
@pytest.mark.large(when=lambda name: name not in ('alibi', 'toeplitz-1000', 'shaw-3'))
def test_pallas_matches_dense_for_every_relative_position(name):
  index = list(RELATIVES).index(name)
  cap = {'cap': 2.0} if index % 2 else {}
  assert_matches_dense(
    [RELATIVES[name]],
    {'mask': MASKS_IN_TURN[index % len(MASKS_IN_TURN)], **cap},
    kv=(1, 2, 4)[index % 3],
  )


ALL = [Shaw(3), XL(types=True), TUPE(512), Toeplitz(300), RoPE(far=9)]


@pytest.mark.parametrize('mask', [Window(9) & Causal(), Strided(4)])
@pytest.mark.large(when=lambda mask: mask == Strided(4))
def test_pallas_combines_all_relative_positions(mask):
  drop = Dropout.of(jax.random.key(9), B, N, 0.2)
  fields = {'mask': mask & Segments(), 'cap': 5.0, 'drop': drop}
  assert_matches_dense(
    ALL,
    fields,
    at=info(spread=5),
    sink=jnp.linspace(-1.0, 1.0, N),
    kernel=Pallas(4, 16, interpret=True),
  )


def test_pallas_in_bfloat16_is_close_to_dense():
  actual, expected = both([TUPE(64), Shaw(3)], {'mask': Causal() & Segments()}, dtype=jnp.bfloat16)
  near = lambda a, b: np.testing.assert_allclose(
    a.astype(float), b.astype(float), atol=0.1, rtol=0.1
  )
  jax.tree.map(near, actual, expected)


def test_pallas_lookups_of_queries_and_keys_match_dense():
  """Lookups as in disentangled attention."""
  rows = Distances(6).rows
  qkv, at = random_qkv(), info()
  e_UNH = jax.random.normal(jax.random.key(5), (12, N, H))

  def loss(kernel, qkv, e_UNH):
    of_queries = lambda q, k, *_: (QueryLookup(jnp.einsum('BTNH,UNH->BNTU', q, e_UNH), rows),)
    of_keys = lambda q, k, *_: (
      KeyLookup(
        jnp.einsum('BSKH,UKGH->BKGSU', k, e_UNH.reshape(12, K, -1, H)).reshape(B, N, T, 12), rows
      ),
    )
    y = kernel(
      *qkv,
      at,
      at,
      Scores(H**-0.5, Causal() & Segments(), contents=(of_queries, of_keys)),
      'float32',
    )
    return (y * jnp.cos(jnp.arange(y.size).reshape(y.shape))).sum()

  actual, expected = (
    jax.jit(jax.grad(functools.partial(loss, k), (0, 1)))(qkv, e_UNH)
    for k in (KERNEL, DenseAttention())
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=3e-5, rtol=3e-5), actual, expected
  )


@pytest.mark.parametrize('kv', [2, 1])
@pytest.mark.large(when=lambda kv: kv == 1)
def test_term_vectors_are_sharded_with_their_heads(kv):
  mesh = jax.make_mesh((2, 4), ('data', 'tensor'), axis_types=(jax.sharding.AxisType.Auto,) * 2)
  rules = [('B', ('data',)), ('N', ('tensor',)), ('K', ())]
  specs, fields = [XL(), TUPE(64), RoPE(far=4), Toeplitz(30)], {'mask': Causal() & Segments()}
  params = [started(spec, DIMS, jax.random.key(0)) for spec in specs]
  params = jax.tree.map(lambda x: 0.5 * jax.random.normal(jax.random.key(x.size), x.shape), params)

  def split(*x):
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh), nn.logical_axis_rules(rules):
      return results(KERNEL, specs, fields, *x)

  x = (info(), random_qkv(kv), params, None)
  actual = jax.jit(split)(*jax.device_put(x, jax.NamedSharding(mesh, jax.P())))
  expected = jax.jit(lambda *x: results(DenseAttention(), specs, fields, *x))(*x)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=3e-5, rtol=3e-5), actual, expected
  )


@pytest.mark.large
def test_model_with_pallas_matches_dense():
  spec = decoder(Block(Attention(4, 2, 8, XL()), Glu(48)), shared_relative=TUPE(64))
  params = nn.unbox(jax.jit(functools.partial(transformer.init, spec))(jax.random.key(0)))
  ids = jax.random.randint(jax.random.key(1), (2, 20), 0, 64)

  @functools.partial(jax.jit, static_argnums=1)
  def gradients(params, kernel):
    loss = lambda p: transformer.apply(spec, p, run=Run(attend=kernel), input_ids=ids)[
      'logits'
    ].var()
    return jax.value_and_grad(loss)(params)

  actual, expected = gradients(params, KERNEL), gradients(params, DenseAttention())
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-4), actual, expected
  )
