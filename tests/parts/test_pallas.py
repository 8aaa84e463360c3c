"""The interpreted TPU kernel: masks, biases, wide heads, a mesh and unsupported calls."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parts.attending import t5
from tfm.core import config, errors
from tfm.parts import mask as masks
from tfm.parts.attend.base import Scores
from tfm.parts.attend.dense import DenseAttention
from tfm.parts.attend.dropout import Dropout
from tfm.parts.attend.pallas import visits
from tfm.parts.attend.pallas.flash import Pallas
from tfm.parts.attend.value_table import ValueTable
from tfm.parts.mask import Causal, Segments, Window
from tfm.parts.relative import ALiBi
from tfm.parts.relative.toeplitz import distance
from tfm.parts.term import Product, QueryLookup
from tfm.parts.tokeninfo import TokenInfo

B, N, K, H, T = 2, 4, 2, 8, 37
KERNEL = Pallas(8, 16, interpret=True)


def random_qkv(T=T, H=H, K=K, dtype=jnp.float32):
  return [
    jax.random.normal(jax.random.key(i), (B, T, n, H)).astype(dtype)
    for i, n in enumerate((N, K, K))
  ]


def info(n=T, prefix=False):
  pos = jnp.broadcast_to(jnp.arange(n), (B, n))
  segment = jnp.ones((B, n), jnp.int32).at[1, -3:].set(0)
  return TokenInfo(pos, segment, {'prefix': (pos % 3 == 0) & (pos < 8)} if prefix else {})


def results(kernel, scores, qkv, at, *more):
  """Return the output, and the gradients of q, k, v and the arguments of `scores`."""

  def loss(qkv, *more):
    y = kernel(*qkv, at, at, scores(*more), 'float32').astype(jnp.float32)
    return (y * jnp.cos(jnp.arange(y.size).reshape(y.shape))).sum(), y

  grads, y = jax.grad(loss, range(1 + len(more)), has_aux=True)(qkv, *more)
  return y, grads


def assert_matches_dense(scores, qkv=None, at=None, more=(), kernel=KERNEL, tolerance=2e-5):
  qkv, at = qkv or random_qkv(), at or info()
  actual, expected = (
    jax.jit(lambda *x, k=k: results(k, scores, *x))(qkv, at, *more)
    for k in (kernel, DenseAttention())
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=tolerance, rtol=tolerance), actual, expected
  )


MASKS = {
  'bigbird': masks.BigBird(4, 1, T, 3),
  'blocks': masks.Blocks(('100', '110', '011'), 13),
  'dilated': Window(4, step=3),
  'fixed': masks.Fixed(8, 2),
  'lambda': masks.Lambda(3, 5),
  'permutation': masks.Permutation(7, itself=False),
  'prefix': masks.Prefix(),
  'strided': masks.Strided(6),
}


@pytest.mark.parametrize('name', MASKS)
@pytest.mark.large(when=lambda name: name not in ('blocks', 'strided'))
def test_pallas_matches_dense_for_every_mask(name):
  drop, sink = Dropout.of(jax.random.key(9), B, N, 0.2), jnp.linspace(-1.0, 1.0, N)
  scores = lambda sink: Scores(H**-0.5, MASKS[name] & Segments(), sink_N=sink, drop=drop)
  assert_matches_dense(
    scores, at=info(prefix=name == 'prefix'), more=(sink,), kernel=Pallas(4, 16, interpret=True)
  )


BUCKET = lambda q, k: jnp.clip(k.positions[:, None, :] - q.positions[:, :, None], -4, 4) + 4
# Biases as functions of a table [9, N].
BIASES = {
  'heads_first': lambda table, q, k: jnp.moveaxis(jnp.moveaxis(table, 0, 1)[:, BUCKET(q, k)], 0, 1),
  'of_all_heads': lambda table, q, k: table[:, 0][BUCKET(q, k)][:, None] * jnp.ones((1, N, 1, 1)),
  'squared_and_sloped': lambda table, q, k: (
    jnp.moveaxis(jnp.tanh(table)[BUCKET(q, k)] ** 2, -1, 1) * table[3][None, :, None, None]
  ),
  'of_keys_alone': lambda table, q, k: (
    jnp.sin(k.positions[:, None] + 0.0 * q.positions[:, :, None])[:, None]
    * table[0][None, :, None, None]
  ),
  'of_segments': lambda table, q, k: jnp.where(
    (q.segment_ids[:, :, None] == k.segment_ids[:, None])[:, None],
    table[1][None, :, None, None],
    0.5,
  ),
  'low_precision': lambda table, q, k: (
    jnp.moveaxis(table.astype(jnp.bfloat16)[BUCKET(q, k)], -1, 1) * 1.0
  ),
}


@pytest.mark.parametrize('name', BIASES)
@pytest.mark.large(
  when=lambda name: name in ('of_all_heads', 'squared_and_sloped', 'of_keys_alone')
)
def test_pallas_biases_match_dense_with_gradients(name):
  table = jax.random.normal(jax.random.key(4), (9, N))
  low = name == 'low_precision'
  scores = lambda table: Scores(
    H**-0.5, Causal() & Segments(), (lambda q, k: BIASES[name](table, q, k),)
  )
  assert_matches_dense(scores, more=(table,), tolerance=0.1 if low else 2e-5)


def mask_of(predicate):
  return type('FromPredicate', (masks.Mask,), {'__call__': lambda self, q, k: predicate(q, k)})()


def test_mask_may_read_an_array():
  far = jnp.asarray([1, 5, 2, 9])
  mask = mask_of(
    lambda q, k: (q.positions - k.positions < far[k.positions % 4]) & (k.positions <= q.positions)
  )
  assert_matches_dense(lambda: Scores(H**-0.5, mask))


@pytest.mark.parametrize(('dtype', 'tolerance'), [(jnp.float32, 1e-4), (jnp.bfloat16, 3e-2)])
def test_head_size_256_at_a_ragged_length(dtype, tolerance):
  assert_matches_dense(
    lambda: Scores(1 / 16, Causal() & Segments(), cap=20.0),
    random_qkv(H=256, dtype=dtype),
    tolerance=tolerance,
  )


def test_masked_out_tiles_are_not_read():
  q, k, v = random_qkv(64)
  k, v = (a.at[:, 16:32].set(jnp.nan) for a in (k, v))
  mask = mask_of(
    lambda q, k: (k.positions <= q.positions) & ((k.positions < 16) | (k.positions >= 32))
  )
  y, grads = jax.jit(lambda x: results(KERNEL, lambda: Scores(1.0, mask), x, info(64)))((q, k, v))
  assert np.isfinite(y).all()
  assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


@pytest.mark.parametrize(
  ('mask', 'tiles', 'unmasked'), [(Causal(), 36, 28), (Causal() & Window(8), 15, 0)]
)
def test_visits_cover_exactly_the_allowed_tiles(mask, tiles, unmasked):
  at = TokenInfo(*(jnp.broadcast_to(a, (1, 64)) for a in (jnp.arange(64), jnp.ones(64, jnp.int32))))
  listed = visits.list_visits(visits.tile_kinds(mask & Segments(), at, at, 8, 8, 64))
  row, column, kind = (np.asarray(a)[0, : int(listed.longest)] for a in visits.decode(listed.code))
  assert listed.longest == tiles == len({*zip(row.tolist(), column.tolist(), strict=True)})
  assert (kind == 2).sum() == unmasked
  assert (kind == 0).sum() == 0
  assert (np.diff(row) >= 0).all()


def test_masked_out_rows_of_tiles_are_visited_once():
  kinds = jnp.asarray([[[0, 0], [1, 2], [0, 1]], [[1, 1], [1, 1], [1, 1]]])
  listed = visits.list_visits(kinds)
  row, column, kind = (np.asarray(a) for a in visits.decode(listed.code))
  assert listed.longest == 6
  assert list(zip(row[0], column[0], kind[0], strict=True)) == [
    (0, 0, 0), (1, 0, 1), (1, 1, 2), (2, 1, 1), (2, 1, 0), (2, 1, 0)
  ]  # fmt: skip


def test_large_batches_share_a_visit_list(monkeypatch):
  monkeypatch.setattr(visits, 'MAX_SEPARATE', 4)
  listed = visits.list_visits(jnp.asarray([[[0, 0], [2, 2]], [[0, 1], [2, 1]]]))
  row, column, kind = (np.asarray(a)[0].tolist() for a in visits.decode(listed.code))
  assert listed.longest == 3
  assert list(zip(row, column, kind, strict=True))[:3] == [(0, 1, 1), (1, 0, 2), (1, 1, 1)]
  assert_matches_dense(lambda: Scores(H**-0.5, Causal() & Segments()))


@pytest.mark.parametrize(('tensor', 'kv'), [(2, 2), (4, 2), (4, 1), (1, 2)])
@pytest.mark.large(when=lambda tensor, kv: (tensor, kv) in ((4, 2), (1, 2)))
def test_kernel_is_sharded_over_batch_and_heads(tensor, kv):
  devices = np.array(jax.devices()[: 2 * tensor]).reshape(2, tensor)
  mesh = jax.sharding.Mesh(
    devices, ('data', 'tensor'), axis_types=(jax.sharding.AxisType.Auto,) * 2
  )
  rules = [('B', ('data',)), ('N', ('tensor',)), ('K', ('tensor',) if kv % tensor == 0 else ())]
  key = jax.random.key(3)
  table, sink = jax.random.normal(key, (32, N)), jnp.linspace(-1.0, 1.0, N)

  def scores(table, sink):
    biases = (t5(table), lambda q, k: ALiBi().bias(N, q, k))
    drop = Dropout.of(key, B, N, 0.2)
    return Scores(H**-0.5, Causal() & Segments(), biases, sink_N=sink, drop=drop)

  def split(*x):
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh), nn.logical_axis_rules(rules):
      return results(KERNEL, scores, *x)

  x = (random_qkv(K=kv), info(), table, sink)
  on_mesh = jax.device_put(x, jax.NamedSharding(mesh, jax.P()))
  actual, expected = (
    jax.jit(split)(*on_mesh),
    jax.jit(lambda *x: results(DenseAttention(), scores, *x))(*x),
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=3e-5, rtol=1e-5), actual, expected
  )


TABLE = ValueTable(lambda q, k: distance(q.rows(), k.columns(), 2), jnp.zeros((5, H)))


def product_of_size(X):
  """Return a product of vectors of size X."""
  return lambda q, k: Product(jnp.zeros((B, N, T, X)), jnp.zeros((B, 1, T, X)))


REFUSALS = {
  'head size 300 is larger than 256': lambda: (random_qkv(H=300), Scores(1.0, Causal())),
  'the kernel does not support position vectors of values': lambda: (
    random_qkv(), Scores(1.0, Causal(), value_tables=(TABLE,))),
  'float16 is neither float32 nor bfloat16': lambda: (
    random_qkv(dtype=jnp.float16), Scores(1.0, Causal())),
  'terms have 16,384 bytes per token and head, more than the maximum of 8,192': lambda: (
    random_qkv(), Scores(1.0, Causal(), products=(product_of_size(2048),))),
  'the bias uses a table of 5,000 entries, more than the maximum of 4,096': lambda: (
    random_qkv(), biased(t5(jnp.ones((5000, N))))),
  'the function of a term uses cumsum': lambda: (
    random_qkv(),
    Scores(1.0, Causal(), contents=(
      lambda q_BTNH, k, *_: (QueryLookup(jnp.moveaxis(q_BTNH, 1, 2), counted),),))),
  'the bias uses dot_general': lambda: (random_qkv(), biased(outer)),
  'the bias uses cumsum': lambda: (
    random_qkv(), biased(lambda q, k: jnp.cumsum(t5(jnp.ones((32, N)))(q, k), -1))),
  r'the bias reads an array of shape \(2, 4, 1, 1\)': lambda: (
    random_qkv(),
    biased(lambda q, k: jnp.arange(8.0).reshape(B, N, 1, 1) * t5(jnp.ones((32, N)))(q, k))),
  r'the bias returns axes \[B, N, S, T\]': lambda: (
    random_qkv(), biased(lambda q, k: outer_gap(k, q))),
}  # fmt: skip


def counted(q, k):
  return jnp.cumsum(k.positions - q.positions, -1) % H


def biased(bias):
  return Scores(1.0, Causal(), (bias,))


def outer(q, k):
  return (q.positions.astype(jnp.float32)[..., None] @ k.positions.astype(jnp.float32)[:, None])[
    :, None
  ] * jnp.ones((1, N, 1, 1))


def outer_gap(q, k):
  return (q.positions[:, None, :, None] - k.positions[:, None, None, :]) * jnp.arange(1.0, N + 1)[
    None, :, None, None
  ]


def test_too_many_tiles_are_refused():
  n = 1 << 18
  like = lambda *shape, dtype=jnp.float32: jax.ShapeDtypeStruct(shape, dtype)
  at = TokenInfo(like(1, n, dtype=jnp.int32), like(1, n, dtype=jnp.int32))
  reason = lambda size: Pallas(size, size).refuses(
    like(1, n, 1, 8), *[like(1, n, 1, 8)] * 2, at, at, Scores(1.0, Causal())
  )
  assert reason(512) == '262,145 tiles and scalars exceed the maximum of 196,608; use larger tiles'
  assert reason(1024) is None


@pytest.mark.parametrize('why', REFUSALS)
def test_unsupported_calls_are_errors_with_the_reason(why):
  qkv, scores = REFUSALS[why]()
  assert KERNEL.refuses(*qkv, info(), info(), scores)
  with pytest.raises(errors.UserError, match=f'attend=pallas: {why}.*Expected attend=blockwise'):
    KERNEL(*qkv, info(), info(), scores, 'float32')


def test_supported_calls_are_not_refused():
  assert KERNEL.refuses(*random_qkv(), info(), info(), biased(outer_gap)) is None
  assert KERNEL.loses('tpu', B, N, T, T) is None
  assert KERNEL.loses('cpu', B, N, T, T) == 'its kernels are for TPUs, and this is a cpu'


def test_invalid_tile_sizes_are_errors():
  with pytest.raises(errors.ConfigError, match='queries=0, keys=512 must be positive'):
    config.validate(Pallas(queries=0))
  with pytest.raises(
    errors.ConfigError,
    match=r'queries=512, keys=200 are not tile sizes of a TPU. Expected multiples of 128',
  ):
    config.validate(Pallas(keys=200))
  config.validate(Pallas(8, 16, interpret=True))
