"""Residual connections: averages over depth, and reversible streams."""

import dataclasses
import functools

import jax
from jax.extend.core import jaxprs_in_params
import jax.numpy as jnp
import numpy as np
import pytest

from tfm.core import config, errors
from tfm.core.precision import Precision
from tfm.model import count, transformer
from tfm.model.spec import Block, Model, Segment, Tower
from tfm.parts.context import Dims, Run
from tfm.parts.cross import CrossAttention
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn import Glu
from tfm.parts.init import Normal
from tfm.parts.mask import Mask
from tfm.parts.mixer import Attention
from tfm.parts.norm import LayerNorm
from tfm.parts.relative import T5Bias
from tfm.parts.residual import Dlcl, Dwa, Residual, Reversible
from tfm.parts.residual_layout import Parallel, Post, Pre

BLOCK = Block(Attention(2, head_dim=4), Glu(12))
IDS = jnp.asarray(np.random.default_rng(0).integers(1, 32, (2, 6)))


def model(residual=Residual(), depth=3, block=BLOCK, **fields):
  return Model(Tokens(32), 8, (Segment((block,), depth),), residual=residual, **fields)


@functools.partial(jax.jit, static_argnums=0)
def logits(spec, params):
  return transformer.apply(spec, params, input_ids=IDS)['logits']


def loss(spec, params, run=Run(), key=None, **inputs):
  inputs = inputs or {'input_ids': IDS}
  out = transformer.apply(spec, params, run=run, key=key, **inputs)['logits']
  return jnp.sum(jnp.sin(out * jnp.arange(32)[None, None]))


@pytest.mark.parametrize('residual', [Dwa(), Dwa(2, 1), Dwa(2, 3)])
@pytest.mark.large(when=lambda residual: residual != Dwa())
def test_depth_weighted_average_starts_as_the_plain_stack(residual):
  key = jax.random.key(0)
  plain, spec = model(depth=5), model(residual, depth=5)
  np.testing.assert_array_equal(
    logits(spec, transformer.init(spec, key)), logits(plain, transformer.init(plain, key))
  )


@pytest.mark.parametrize(
  ('depth', 'residual', 'weights'),
  [
    (48, Dwa(), 1224),
    (48, Dwa(4, 5), 62),
    (72, Dwa(), 2700),
    (3, Dwa(1, 4), 0),
    (6, Dlcl(), 7 * 8 // 2),
  ],
)
def test_averages_have_the_published_size(depth, residual, weights):
  plain, spec = model(depth=depth), model(residual, depth)
  norms = (depth + 1) * 2 * 8 if isinstance(residual, Dlcl) else 0
  assert count.count_params(spec) - count.count_params(plain) == weights + norms
  assert count.flops_per_token(spec, 4) - count.flops_per_token(plain, 4) == 2 * 8 * weights
  rows = count.table(spec, 4)
  assert sum(row.params * row.repeats for row in rows) == count.count_params(spec)
  assert sum(row.flops * row.repeats for row in rows) == count.flops_per_token(spec, 4)


def run_stack(residual, params, blocks, x_BTD):
  """Return the stream before and after each of `blocks`, which are functions."""
  module = residual.make(Dims(8, len(blocks), Normal(), Run()))
  connection = module.apply({'params': params})
  x_BTD, carry = connection.start(x_BTD)
  inputs = [x_BTD]
  for i, block in enumerate(blocks):
    x_BTD, carry = connection.join(
      Pre(), x_BTD, carry, {'mixer': block}, lambda name: lambda x: x, None
    )
    x_BTD, carry = connection.after(x_BTD, carry, jnp.int32(i))
    inputs.append(x_BTD)
  return inputs


BLOCKS = [lambda x, *_, i=i: jnp.cos((i + 1) * x) for i in range(5)]


@pytest.mark.parametrize(('dilation', 'period'), [(1, 1), (2, 1), (1, 2), (2, 3)])
def test_depth_weighted_average_equals_its_formula(dilation, period):
  rng = np.random.default_rng(0)
  spec, x = Dwa(dilation, period), jnp.asarray(rng.standard_normal((1, 2, 8)), jnp.float32)
  a = {(s.target, j): 0.3 * rng.standard_normal() for s in spec.sums(5) for j in s.sources}
  outputs, inputs = [x], [x]
  for i, block in enumerate(BLOCKS, start=1):
    outputs.append(inputs[-1] + block(inputs[-1]))
    terms = [outputs[i]]
    if i % period == 0:
      terms = [a[i, j] * outputs[j] for j in range(i + 1) if (i - j) % dilation == 0]
    inputs.append(sum(terms))
  weights = jnp.asarray(list(a.values()), jnp.float32)
  for y, z in zip(run_stack(spec, {'weights': weights}, BLOCKS, x), inputs, strict=True):
    np.testing.assert_allclose(y, z, atol=1e-5)


def test_dynamic_combination_starts_as_the_mean_of_norms():
  spec, x = (
    Dlcl(LayerNorm(0.0)),
    jnp.asarray(np.random.default_rng(0).standard_normal((1, 2, 8)), jnp.float32),
  )
  normed = lambda x: (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True))
  outputs, inputs = [x], [normed(x)]
  for block in BLOCKS:
    outputs.append(inputs[-1] + block(inputs[-1]))
    inputs.append(sum(map(normed, outputs)) / len(outputs))
  params = {
    'weights': jnp.concatenate([jnp.full(l + 1, 1 / (l + 1)) for l in range(6)]),
    'norms': {'scale': jnp.ones((6, 8)), 'bias': jnp.zeros((6, 8))},
  }
  full = model(spec, 5)
  np.testing.assert_allclose(
    transformer.init(full, jax.random.key(0))['residual']['weights'], params['weights']
  )
  for y, z in zip(run_stack(spec, params, BLOCKS, x), inputs, strict=True):
    np.testing.assert_allclose(y, z, atol=1e-5)


def sizes(jaxpr):
  """Yield the number of elements of every array of a jaxpr, including nested ones."""
  for eqn in jaxpr.eqns:
    yield from (v.aval.size for v in eqn.outvars if hasattr(v.aval, 'size'))
    for inner in jaxprs_in_params(eqn.params):
      yield from sizes(inner)


def test_gradient_of_averages_saves_each_output_once():
  L, (B, T), D = 16, IDS.shape, 8
  spec = model(Dwa(), L)
  program = jax.make_jaxpr(jax.grad(functools.partial(loss, spec)))(transformer.param_shapes(spec))
  assert L * B * T * D < max(sizes(program.jaxpr)) < L * L * B * T * D


def toy(x_BTD, other_BTD):
  f, g = (lambda x, *_, wave=wave: wave(x) for wave in (jnp.cos, jnp.sin))
  connection = Reversible().make(Dims(8, 1, Normal(), Run()))()
  return connection.join(
    Pre(), x_BTD, other_BTD, {'mixer': f, 'ffn': g}, lambda name: lambda x: x, None
  )


def test_reversible_streams_can_be_inverted():
  x2, x1 = jax.random.normal(jax.random.key(0), (2, 1, 3, 8))
  y2, y1 = toy(x2, x1)
  np.testing.assert_allclose(y1, x1 + jnp.cos(x2), atol=1e-6)
  np.testing.assert_allclose(y2, x2 + jnp.sin(y1), atol=1e-6)
  back = y2 - jnp.sin(y1)
  np.testing.assert_allclose(back, x2, atol=1e-6)
  np.testing.assert_allclose(y1 - jnp.cos(back), x1, atol=1e-6)


def encdec():
  """Return a reversible encoder-decoder with shared biases and all kinds of dropout."""
  dropout = {'dropout': 0.2, 'drop_path': 0.3}
  decoder_block = Block(
    Attention(2, head_dim=4, dropout=0.1), Glu(12), cross=CrossAttention(2, head_dim=4), **dropout
  )
  encoder_block = Block(
    Attention(2, head_dim=4, mask=Mask()), Glu(12), residual_layout=Parallel(), **dropout
  )
  shared = {'shared_relative': T5Bias(), 'residual': Reversible()}
  encoder = Tower(segments=(Segment((encoder_block,), 2),), **shared)
  return Model(
    Tokens(32), 8, (Segment((BLOCK, decoder_block), 2),), towers={'encoder': encoder}, **shared
  )


DOUBLE = Precision('float64', 'float64', 'float64')


@pytest.mark.parametrize(('jitted', 'loop'), [('outside', 'unroll'), ('inside', 'scan')])
@pytest.mark.large
def test_reversible_gradient_equals_autodiff_with_dropout(monkeypatch, jitted, loop):
  spec = encdec()
  params, key = (
    transformer.init(dataclasses.replace(spec, init=Normal(0.3)), jax.random.key(0)),
    jax.random.key(1),
  )
  inputs = {'input_ids': IDS, 'decoder_input_ids': IDS[:, ::-1]}

  def gradient():
    of = lambda p: loss(spec, p, Run(precision=DOUBLE, loop=loop), key, **inputs)
    return (
      jax.jit(jax.value_and_grad(of)) if jitted == 'outside' else jax.value_and_grad(jax.jit(of))
    )(params)

  # In float32 the two differ by 1e-4, and both differ by as much from this result in float64.
  with jax.enable_x64(True):
    params = jax.tree.map(lambda a: a.astype(jnp.float64), params)
    reversible = gradient()
    monkeypatch.setattr(Reversible, 'reversible', False)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=1e-11, rtol=1e-11), reversible, gradient()
    )


def test_reversible_gradient_of_many_layers_is_accurate(monkeypatch):
  spec = model(Reversible(), 64, init=Normal(0.3))
  params = transformer.init(spec, jax.random.key(0))
  reversible = jax.jit(jax.grad(functools.partial(loss, spec)))(params)
  monkeypatch.setattr(Reversible, 'reversible', False)
  plain = jax.jit(jax.grad(functools.partial(loss, spec)))(params)
  for a, b in zip(jax.tree.leaves(reversible), jax.tree.leaves(plain), strict=True):
    assert np.linalg.norm(a - b) < 1e-4 * np.linalg.norm(b)


def temporary_bytes(spec):
  """Return the temporary memory of a training step, in bytes."""
  ids = jnp.ones((4, 64), jnp.int32)
  of = lambda p: transformer.apply(spec, p, input_ids=ids)['last_hidden_state'].sum()
  compiled = jax.jit(jax.grad(of)).lower(transformer.param_shapes(spec)).compile()
  return compiled.memory_analysis().temp_size_in_bytes


def test_reversible_memory_is_independent_of_depth(monkeypatch):
  shallow, deep = model(Reversible(), 4), model(Reversible(), 24)
  params = 4 * (count.count_params(deep) - count.count_params(shallow))
  stream = 4 * 4 * 64 * 8
  assert temporary_bytes(deep) - temporary_bytes(shallow) < 2 * params + stream
  monkeypatch.setattr(Reversible, 'reversible', False)
  assert temporary_bytes(deep) - temporary_bytes(shallow) > 20 * stream


def test_layouts_that_cannot_be_inverted_are_errors():
  post = dataclasses.replace(BLOCK, residual_layout=Post())
  with pytest.raises(errors.ConfigError) as e:
    config.validate(model(Reversible(), block=post))
  assert (
    'segments.0.pattern.0: residual_layout=post normalises the residual stream, which '
    'residual=reversible cannot invert. '
    'Expected any of after, parallel, pre, sandwich, unnormalised.'
  ) in str(e.value)
  with pytest.raises(errors.ConfigError, match='dilation=0, period=1 must be positive'):
    config.validate(model(Dwa(0)))
