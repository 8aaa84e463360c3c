"""Conditions on timesteps and classes, and the norms and gates that use them."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parts.towers import apply, block, close, linear, model, normal, normalised, params
from tfm.core import config
from tfm.model import transformer
from tfm.model.cache import init_cache
from tfm.model.spec import Model
from tfm.parts.act import Act
from tfm.parts.context import Dims, Run
from tfm.parts.embed import Conditioned, Features, Tokens
from tfm.parts.head import Lm
from tfm.parts.init import Normal
from tfm.parts.mask import Causal
from tfm.parts.norm import AdaptiveNorm
from tfm.parts.residual import Reversible
from tfm.parts.residual_scale import Gate, Gru

B, T = 2, 6


def dit(of=Features('latents', 5), **fields) -> Model:
  """Return a model with blocks conditioned on a timestep and a class."""
  weights = {'waves': 8, 'classes': 4} | {
    n: fields.pop(n) for n in ('class_dropout', 'pooled') if n in fields
  }
  return model(
    Conditioned(of, **weights),
    block(norm=AdaptiveNorm(), residual_scale=Gate()),
    norm=AdaptiveNorm(),
    **fields,
  )


CONDITION = {'timestep': jnp.asarray([3.0, 700.0]), 'class_labels': jnp.asarray([0, 3])}


def test_conditioned_blocks_start_as_the_identity():
  spec = dit()
  p = transformer.init(spec, jax.random.key(0))
  out = transformer.apply(spec, p, latents=normal(B, T, 5), output_hidden_states=True, **CONDITION)
  first, *others, _ = out['hidden_states']
  for x in others:
    np.testing.assert_array_equal(x, first)


@pytest.mark.parametrize('name', ['timestep', 'class_labels', 'pooled_projections'])
def test_conditions_affect_their_own_example_only(name):
  spec = dit(pooled=7)
  p, given = (
    params(spec),
    {'latents': normal(B, T, 5), 'pooled_projections': normal(B, 7)} | CONDITION,
  )
  before = apply(spec, p, given)['predictions']
  after = apply(spec, p, given | {name: given[name].at[1].add(-1)})['predictions']
  np.testing.assert_array_equal(after[0], before[0])
  assert np.abs(after[1] - before[1]).min(-1).max() > 1e-4


def test_adaptive_norm_scales_and_shifts_by_the_condition():
  spec = dit(segments=())
  p, given = params(spec), {'latents': normal(B, T, 5)} | CONDITION
  weights, norm = p['embed'], p['norm']
  angle = np.asarray(CONDITION['timestep'])[:, None] * 10_000 ** (-np.arange(4) / 4)
  wave = np.concatenate([np.cos(angle), np.sin(angle)], -1)
  c = linear(jax.nn.silu(linear(wave, weights['time_in'])), weights['time_out'])
  c = jax.nn.silu(c + np.asarray(weights['classes'])[CONDITION['class_labels']])
  scale, shift = (linear(c, norm[name]['project'])[:, None] for name in ('scale', 'shift'))
  x = normalised(linear(given['latents'], weights['of']['project']), 1e-6)
  found = transformer.apply(spec, p, **given)['last_hidden_state']
  np.testing.assert_allclose(found, x * (1 + scale) + shift, atol=1e-4, rtol=1e-3)


def test_dropped_labels_become_the_extra_class():
  spec = dit(class_dropout=0.5)
  p, x = params(spec), normal(B, T, 5)
  assert p['embed']['classes'].shape == (5, 32)
  run = lambda labels, **more: transformer.apply(
    spec, p, latents=x, timestep=CONDITION['timestep'], class_labels=labels, **more
  )['predictions']
  kept, dropped = run(CONDITION['class_labels']), run(jnp.asarray([4, 4]))
  outcomes = set()
  for seed in range(8):
    found = run(CONDITION['class_labels'], key=jax.random.key(seed))
    for row in range(B):
      is_kept = bool(np.allclose(found[row], kept[row], atol=1e-5))
      assert is_kept or np.allclose(found[row], dropped[row], atol=1e-5)
      outcomes.add(is_kept)
  assert outcomes == {True, False}


def test_conditioned_language_model_decodes_from_a_cache():
  embed = Conditioned(Tokens(61), waves=8)
  spec = model(
    embed, block(Causal(), norm=AdaptiveNorm(), residual_scale=Gate()), heads={'lm': Lm()}
  )
  p, ids, time = (
    params(spec),
    jnp.asarray(np.random.default_rng(0).integers(0, 61, (B, T))),
    {'timestep': CONDITION['timestep']},
  )
  whole = apply(spec, p, {'input_ids': ids} | time)['logits']
  out = apply(spec, p, {'input_ids': ids[:, :4]} | time, init_cache(spec, B, 8))
  close(out['logits'], whole[:, :4])
  close(apply(spec, p, {'input_ids': ids[:, 4:]} | time, out['cache'])['logits'], whole[:, 4:])


def test_reversible_blocks_give_gradients_of_the_condition():
  spec = dit(residual=Reversible())
  given = {'latents': normal(B, T, 5)} | CONDITION
  p = params(spec)

  @jax.jit
  def loss(p):
    return jnp.mean(apply(spec, p, given)['predictions'] ** 2)

  grads = jax.jit(jax.grad(loss))(p)['embed']
  numeric = lambda up, down: (loss(up) - loss(down)) / 2e-2
  shifted = lambda by: (
    p | {'embed': p['embed'] | {'classes': p['embed']['classes'].at[3, 0].add(by)}}
  )
  close(grads['classes'][3, 0], numeric(shifted(1e-2), shifted(-1e-2)), rtol=1e-2)
  assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(grads))


def test_gru_gate_equals_the_formula_of_the_paper():
  """g(x, y) = (1 - z) x + z h, with r, z and h as in arXiv:1910.06764, equations 7 to 9."""
  gate = Gru(act=Act())
  dims = Dims(8, 2, Normal(), Run())
  x, y = normal(B, T, 8), normal(B, T, 8, seed=1)
  module = gate.make(dims)
  weights = nn.unbox(module.init(jax.random.key(0), y, x, None))['params']
  weights = {
    name: jax.tree.map(lambda a, i=i: a + normal(*a.shape, seed=i), part)
    for i, (name, part) in enumerate(weights.items())
  }
  w = {name: np.asarray(layer['kernel']) for name, layer in weights.items() if name != 'bias'}
  s = lambda a: 1 / (1 + np.exp(-a))
  x, y = np.asarray(x), np.asarray(y)
  r = s(y @ w['reset_y'] + x @ w['reset_x'])
  z = s(y @ w['update_y'] + x @ w['update_x'] - np.asarray(weights['bias']))
  h = np.tanh(y @ w['new_y'] + (r * x) @ w['new_x'])
  close(
    x + module.apply({'params': weights}, jnp.asarray(y), jnp.asarray(x), None), (1 - z) * x + z * h
  )


def test_gru_gate_has_the_published_size_and_initial_value():
  module = Gru().make(Dims(256, 12, Normal(), Run()))
  x, y = normal(1, 4, 256), normal(1, 4, 256, seed=1)
  weights = nn.unbox(module.init(jax.random.key(0), y, x, None))['params']
  assert sum(a.size for a in jax.tree.leaves(weights)) == 393_472
  assert (np.asarray(weights['bias']) == 2).all()
  zero = jax.tree.map(jnp.zeros_like, weights) | {'bias': weights['bias']}
  # z = s(-2) = 0.119 and h = 0, so the update is -0.119 x.
  close(module.apply({'params': zero}, y, x, None), -0.1192029 * x)


def test_gru_gate_with_a_large_bias_is_the_identity():
  spec = model(Features('states', 5), block(residual_scale=Gru(30.0)))
  p = transformer.init(spec, jax.random.key(0))
  first, *_, last = transformer.apply(spec, p, states=normal(B, T, 5), output_hidden_states=True)[
    'hidden_states'
  ][:-1]
  close(last, first)


def test_flags_build_a_conditioned_model():
  spec = model(Features('latents', 5, grid=(2, 3)))
  flags = {
    'embed': 'conditioned(of=features(input=latents, size=5, grid=(2, 3)), classes=4)',
    '..norm': 'adaptive',
    '..residual_scale': 'gate', 'heads.regress': 'none',
    'heads.image': 'unpatchify(size=2, channels=3)',
  }  # fmt: skip
  for path, text in flags.items():
    spec = config.override(spec, path, text)
  config.validate(spec)
  assert spec.embed == Conditioned(Features('latents', 5, grid=(2, 3)), classes=4)
  assert spec.segments[0].pattern[0].residual_scale == Gate()
  out = apply(spec, params(spec), {'latents': normal(B, T, 5)} | CONDITION)
  assert out['predictions'].shape == (B, 3, 4, 6)
