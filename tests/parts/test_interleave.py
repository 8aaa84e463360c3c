"""Interleaved streams, as in a decision transformer."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.parts.towers import (
  apply,
  causal,
  close,
  embedded,
  linear,
  model,
  normal,
  normalised,
  params,
)
from tfm.model.cache import init_cache, rewind
from tfm.model.spec import Model
from tfm.parts.absolute import Learned
from tfm.parts.embed import Features, Interleave
from tfm.parts.embed.interleave import Stream
from tfm.parts.head import Regress

B, T = 2, 6


def decision(mask=True, **fields) -> Model:
  """Return a decision transformer with states of width 5 and actions of width 2."""
  parts = (
    Stream('returns', Features('returns_to_go', 1)),
    Stream('states', Features('states', 5)),
    Stream('actions', Features('actions', 2)),
  )
  heads = {
    'action': Regress(2, stream='states', name='action_preds'),
    'state': Regress(5, stream='actions', name='state_preds'),
    'all': Regress(3),
  }
  make = causal if mask else model
  return make(Interleave(parts, timesteps=12), heads=heads, **fields)


def trajectory(length: int = 4) -> dict[str, jax.Array]:
  """Return the inputs of `decision` for B trajectories with different start times."""
  time = jnp.arange(length)[None] + jnp.asarray([[0], [5]])
  given = {'returns_to_go': normal(B, length, 1, seed=1), 'states': normal(B, length, 5, seed=2)}
  return given | {'actions': normal(B, length, 2, seed=3), 'timesteps': time}


def test_streams_are_interleaved_with_their_time_steps():
  spec = decision()
  p, given = params(spec), trajectory()
  weights = p['embed']
  time = np.asarray(weights['timesteps'])[given['timesteps']]
  streams = {'returns': 'returns_to_go', 'states': 'states', 'actions': 'actions'}
  each = [
    linear(given[name], weights[stream]['project']) + time for stream, name in streams.items()
  ]
  x = normalised(np.stack(each, 2).reshape(B, 12, 32))
  close(
    embedded(spec, p, given),
    x * np.asarray(weights['norm']['scale']) + np.asarray(weights['norm']['bias']),
  )


def test_heads_use_the_tokens_of_their_stream():
  spec = decision()
  p = params(spec)
  out = apply(spec, p, trajectory())
  assert out['predictions'].shape == (B, 12, 3)
  close(out['action_preds'], linear(out['last_hidden_state'][:, 1::3], p['action_head']['out']))
  assert out['state_preds'].shape == (B, 4, 5)


def test_predicted_action_depends_on_the_state_not_on_itself():
  spec = decision()
  p, given = params(spec), trajectory()
  before = apply(spec, p, given)['action_preds']
  moved = lambda name: apply(spec, p, given | {name: given[name].at[:, 2].add(1.0)})['action_preds']
  np.testing.assert_array_equal(moved('actions')[:, :3], before[:, :3])
  assert np.abs(moved('actions')[:, 3] - before[:, 3]).min() > 1e-6
  np.testing.assert_array_equal(moved('states')[:, :2], before[:, :2])
  assert np.abs(moved('states')[:, 2] - before[:, 2]).min() > 1e-6


def test_padded_steps_are_ignored():
  spec = decision(absolute=Learned(24))
  p, given = params(spec), trajectory()
  alone = apply(spec, p, given)['action_preds']
  pad = lambda x: jnp.concatenate([jnp.full_like(x[:, :2], 3), x], 1)
  mask = jnp.ones((B, 6), int).at[:, :2].set(0)
  padded = apply(spec, p, {n: pad(x) for n, x in given.items()} | {'attention_mask': mask})
  close(padded['action_preds'][:, 2:], alone)


def test_cached_steps_match_the_full_forward_pass():
  spec = decision(absolute=Learned(24))
  p, given = params(spec), trajectory()
  whole = apply(spec, p, given)['action_preds']
  cache, blank = init_cache(spec, B, 24), given | {'actions': jnp.zeros_like(given['actions'])}
  for t in range(4):
    start = max(t - 1, 0)
    cache = rewind(cache, jnp.full((B,), 3 * start, jnp.int32))
    step = {n: jnp.concatenate([given[n][:, start:t], blank[n][:, t : t + 1]], 1) for n in given}
    out = apply(spec, p, step, cache)
    close(out['action_preds'][:, -1], whole[:, t])
    cache = out['cache']
