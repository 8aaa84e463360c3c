"""Contracts of every input layer, head, unit, resampling layer and conditioned part.

New table entries are included.
"""

import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.contracts.levels import is_conditioned, tables
from tfm import zoo
from tfm.core import config
from tfm.core.axes import AXES, letters_of
from tfm.model import count, stack, transformer
from tfm.model.spec import Block, Model, Segment, Tower
from tfm.parts.context import Run
from tfm.parts.cross import CrossAttention
from tfm.parts.embed import Conditioned, Embed, Features, Tokens
from tfm.parts.embed.base import unpadded
from tfm.parts.ffn import Glu
from tfm.parts.head import Head, Lm, PartlyTied, Regress
from tfm.parts.head.base import HeadContext
from tfm.parts.mask import Mask
from tfm.parts.mixer import Attention
from tfm.parts.norm import LayerNorm
from tfm.parts.tokeninfo import with_grid
from tfm.train import shard
from tfm.train.mesh import Mesh

B, T, D = 8, 8, 32
GRID = (4, 4)

TABLES = tables()
#: `per_layer` needs residual=altup: `cases.variants` has a model with both.
EMBEDS = {f'embed={name}': row() for name, row in TABLES['embed'].items() if name != 'per_layer'}
HEADS = {f'head={name}': row() for name, row in TABLES['head'].items()}
UNITS = {f'unit={name}': row() for name, row in TABLES['unit'].items()}
RESAMPLES = {f'resample={name}': row() for name, row in TABLES['resample'].items()}
CONDITIONED = {
  f'{kind}={name}': {kind: row()}
  for kind in ('norm', 'residual_scale')
  for name, row in TABLES[kind].items()
  if is_conditioned(row)
}


def _model(embed: Embed, segment: Segment | None = None, **fields) -> Model:
  """Return a model around an input layer, with a norm that uses its condition, if any.

  Its blocks attend to the towers that the input layer reads.
  """
  conditioned = next(row() for row in TABLES['norm'].values() if is_conditioned(row))
  norm = conditioned if embed.conditions else LayerNorm()
  block = Block(Attention(4, None, 8, mask=Mask()), Glu(48), norm)
  pattern = [
    Block(None, None, norm, cross=CrossAttention(4, None, 8, tower=name)) for name in embed.towers
  ]
  towers = {
    name: Tower(Features(f'{name}_states', 5), segments=(), norm=None) for name in embed.towers
  }
  fields = {'heads': {'values': Regress(3)}, 'norm': norm, 'towers': towers} | fields
  return zoo.tiny(Model(embed, D, (segment or Segment((*pattern, block), 2),), **fields))


def _models() -> dict[str, Model]:
  """Return a model of every input layer, unit, resampling and conditioned part."""
  found = {name: _model(embed) for name, embed in EMBEDS.items()}
  block = Block(Attention(4, None, 8, mask=Mask()), Glu(48), LayerNorm())
  wide = Block(Attention(4, None, 16, mask=Mask()), Glu(48), LayerNorm())
  found |= {
    name: _model(Features(), Segment((block,), 2, unit=unit)) for name, unit in UNITS.items()
  }
  for name, part in RESAMPLES.items():
    embed = Features(grid=GRID if part.grid else None)
    found[name] = _model(embed, Segment((wide,), 2, resample=part, d_model=2 * D))
  for name, part in CONDITIONED.items():
    found[name] = _model(
      Conditioned(Features()), Segment((Block(block.mixer, block.ffn, **part),), 2)
    )
  return found


MODELS = _models()


@pytest.fixture(scope='module', params=MODELS, ids=str)
def spec(request):
  return MODELS[request.param]


@functools.lru_cache(maxsize=1)
def _params(spec: Model):
  """Return parameters away from idle starts: scales near 1, all others N(0, 0.2^2)."""
  rng = np.random.default_rng(1)

  def leaf(path, shape):
    noise = rng.standard_normal(shape.shape).astype(np.float32)
    return jnp.asarray(1 + 0.1 * noise if path[-1].key == 'scale' else 0.2 * noise)

  return jax.tree_util.tree_map_with_path(leaf, transformer.param_shapes(spec))


def _inputs(spec: Model, batch: int = B) -> dict[str, jax.Array]:
  """Return valid inputs by the names of `apply`; other towers have half as many tokens."""
  found = {}
  for i, name in enumerate(('', *spec.towers)):
    embed = spec.tower(name).embed
    assert embed is not None
    found |= embed.example(jax.random.key(i), batch, T // 2 if name else T)
  return found


def _loss(spec: Model, run: Run, p, inputs):
  out = transformer.apply(spec, p, run=run, **inputs)
  return jnp.mean(out['predictions'].astype(jnp.float32) ** 2)


@functools.lru_cache(maxsize=2)
def _value_and_grad(spec: Model, loop: str):
  step = jax.jit(jax.value_and_grad(functools.partial(_loss, spec, Run(loop=loop))))
  return jax.device_get(step(_params(spec), _inputs(spec)))


def _named(tree):
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return [(jax.tree_util.keystr(path, simple=True, separator='/'), leaf) for path, leaf in leaves]


def _same(grads, expected):
  """Assert equality relative to the largest number of each array and of all."""
  most = max(np.abs(g).max() for g in jax.tree.leaves(expected))
  for (name, g), (_, other) in zip(_named(expected), _named(grads), strict=True):
    np.testing.assert_allclose(
      other, g, atol=1e-5 * np.abs(g).max() + 1e-6 * most, rtol=1e-3, err_msg=name
    )


def test_config_is_valid_and_survives_json(spec):
  assert config.validate(spec) is spec
  assert config.from_json(Model, config.to_json(spec)) == spec


def test_examples_have_the_declared_shapes(spec):
  for name in ('', *spec.towers):
    embed = spec.tower(name).embed
    example = embed.example(jax.random.key(0), B, T)
    shapes = embed.shapes(B, T)
    assert set(example) == set(shapes) == set(embed.needs)
    for name, x in example.items():
      assert (x.shape, x.dtype) == (shapes[name].shape, shapes[name].dtype), name


def test_sequence_has_the_declared_length(spec):
  out = jax.eval_shape(
    lambda p, x: transformer.apply(spec, p, **x), transformer.param_shapes(spec), _inputs(spec)
  )
  length = spec.embed.tokens(T)
  for segment in spec.segments:
    length = length if segment.resample is None else segment.resample.length(length)
  assert out['last_hidden_state'].shape == (B, length, spec.d_out)


def test_init_is_deterministic_and_depends_on_the_key(spec):
  one, same, other = (transformer.init(spec, jax.random.key(seed)) for seed in (0, 0, 1))
  jax.tree.map(np.testing.assert_array_equal, one, same)
  assert any(
    not np.array_equal(a, b)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
  )
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(one))


def test_axis_letters_have_the_rank_of_the_parameters(spec):
  letters, shapes = transformer.param_letters(spec), transformer.param_shapes(spec)
  for (name, text), shape in zip(_named(letters), jax.tree.leaves(shapes), strict=True):
    assert len(text) == len(shape.shape), name
    assert set(text) <= set(AXES), name


def test_all_gradients_are_finite_and_nonzero(spec):
  _, grads = _value_and_grad(spec, 'scan')
  for name, g in _named(grads):
    assert np.isfinite(g).all(), name
    assert np.abs(g).max() > 0, name


def test_unrolled_equals_scanned(spec):
  (scanned, grads), (unrolled, others) = (
    _value_and_grad(spec, loop) for loop in ('scan', 'unroll')
  )
  np.testing.assert_allclose(scanned, unrolled, rtol=1e-5)
  _same(others, grads)


def test_examples_are_independent_of_their_batch(spec):
  inputs, params = _inputs(spec), _params(spec)  # outside of jit, because they are cached
  run = jax.jit(lambda x: transformer.apply(spec, params, **x)['predictions'])
  whole_batch, few = run(inputs), run({name: x[:2] for name, x in inputs.items()})
  np.testing.assert_allclose(few, whole_batch[:2], atol=1e-5, rtol=1e-4)


def test_table_sums_to_the_flops_and_parameters(spec):
  table = count.table(spec, T)
  assert sum(row.params * row.repeats for row in table) == count.count_params(spec)
  assert sum(row.flops * row.repeats for row in table) == pytest.approx(
    count.flops_per_token(spec, T)
  )


def test_eight_devices_equal_one(spec):
  mesh = Mesh(2, 2, 2)
  value, grads = _value_and_grad(spec, 'scan')
  grid, rules = shard.make_mesh(mesh, jax.devices()), mesh.table()
  letters, shapes = transformer.param_letters(spec), transformer.param_shapes(spec)
  where, rules, _ = shard.shardings(grid, rules, letters, shapes)
  step = shard.with_rules(grid, rules, jax.value_and_grad(functools.partial(_loss, spec, Run())))
  split = jax.jit(step, in_shardings=(where, shard.batch_axis(grid, rules)))
  found, others = split(jax.device_put(_params(spec), where), _inputs(spec))
  np.testing.assert_allclose(found, value, rtol=1e-5)
  _same(others, grads)


@pytest.fixture(params=HEADS, ids=str)
def head(request) -> Head:
  return zoo.tiny(HEADS[request.param])


def _head_call(head: Head):
  """Return (module, x_BTD, context) of a head by itself, on an image of 4 x 4 patches with token
  ids.
  """
  tower = Model(Tokens(64), D, heads={'lm': Lm()})
  dims = stack.tower_dims(tower, tower, Run())
  x_BTD = jax.random.normal(jax.random.key(0), (2, GRID[0] * GRID[1], D))
  info = with_grid(unpadded(*x_BTD.shape[:2]), GRID)
  width = D // 2 if isinstance(head, PartlyTied) else D
  table_VD = jax.random.normal(jax.random.key(1), (64, width))
  inputs = {'input_ids': jnp.ones(x_BTD.shape[:2], jnp.int32)}
  examples = head.examples(x_BTD.dtype)
  drawn = {
    n: jax.random.normal(jax.random.key(i), a.shape, a.dtype)
    for i, (n, a) in enumerate(examples.items())
  }
  return head.make(dims), x_BTD, HeadContext(info, inputs, drawn, table_VD, GRID)


def test_head_survives_json(head):
  spec = Tower(heads={'own': head})
  assert config.from_json(Tower, config.to_json(spec)) == spec
  assert not list(head.check())


def test_head_returns_the_named_outputs(head):
  module, x_BTD, context = _head_call(head)
  variables = module.init(jax.random.key(0), x_BTD, context)
  for alone in (True, False):
    out = module.apply(nn.unbox(variables), x_BTD, context._replace(alone=alone))
    assert tuple(out) == head.returns(alone)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(out))


def test_head_examples_match_the_outputs_it_reads(head):
  assert set(head.examples(jnp.float32)) == set(head.reads)


def test_all_gradients_of_a_head_are_nonzero(head):
  module, x_BTD, context = _head_call(head)
  variables = module.init(jax.random.key(0), x_BTD, context)
  letters = letters_of(variables.get('params', {}))
  noise = lambda a: a + 0.1 * jax.random.normal(jax.random.key(a.size), a.shape)
  p = jax.tree.map(noise, nn.unbox(variables).get('params', {}))

  def loss(p, x_BTD):
    out = module.apply({'params': p}, x_BTD, context)
    weigh = lambda y: jnp.sum(y * jax.random.normal(jax.random.key(y.size), y.shape))
    return sum(map(weigh, jax.tree.leaves(out)))

  grads, dx_BTD = jax.jit(jax.grad(loss, (0, 1)))(p, x_BTD)
  for (name, g), text in zip(_named(grads), jax.tree.leaves(letters), strict=True):
    assert len(text) == g.ndim, name
    assert np.isfinite(g).all(), name
    assert np.abs(g).max() > 0, name
  assert np.abs(dx_BTD).max() > 0 or head.reads


def test_head_init_is_deterministic(head):
  module, x_BTD, context = _head_call(head)
  one, same = (nn.unbox(module.init(jax.random.key(0), x_BTD, context)) for _ in range(2))
  jax.tree.map(np.testing.assert_array_equal, one, same)


def test_head_flops_do_not_decrease_with_length(head):
  tower = Model(Tokens(64), D, heads={'lm': Lm()})
  dims = stack.tower_dims(tower, tower, Run())
  assert head.flops(dims, 2 * T) >= head.flops(dims, T) >= 0
