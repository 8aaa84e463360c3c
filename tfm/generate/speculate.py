"""Speculative decoding (arXiv:2211.17192): a draft guesses tokens, one pass of the model says how
many may stay.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from tfm.generate.accept import accept, accept_likeliest
from tfm.generate.drafts import Draft, Said
from tfm.generate.logits_processors import LogitsProcessors, priced
from tfm.generate.penalties import NOTHING
from tfm.generate.sampling import warp
from tfm.generate.step import State
from tfm.model.cache import rewind, with_history
from tfm.model.spec import Model
from tfm.model.transformer import apply
from tfm.parts.context import Run


@functools.partial(jax.jit, static_argnames=('spec', 'ahead', 'run'), donate_argnames='state')
def go_on(
  spec: Model,
  params: Any,
  state: State,
  rules: LogitsProcessors,
  draft: Draft,
  until: jax.Array,
  *,
  ahead: int,
  run: Run,
) -> State:
  """The state once every row has `until` tokens or has ended; rows that are luckier have more by up
  to `ahead`.
  """
  one = lambda state: _round(spec, params, state, rules, draft, ahead, run)
  return jax.lax.while_loop(lambda s: jnp.any(~s.done_B & (s.n_B < until)), one, state)


def _round(
  spec: Model, params: Any, state: State, rules: LogitsProcessors, draft: Draft, G: int, run: Run
) -> State:
  """`state` with 1 to G + 1 more tokens in each row that goes on."""
  own = '' if spec.encoder is None else 'decoder_'
  # A round begins with another number of tokens than the one before, so its keys are new.
  keys_B = jax.vmap(jax.random.fold_in)(rules.keys_B, state.n_B)
  keys_GB = jax.vmap(lambda g: jax.vmap(jax.random.fold_in, (0, None))(keys_B, g))(
    1 + jnp.arange(G)
  )
  said = Said(state.tokens_BT, state.n_B, state.last_B)
  drafted_BG, q_BGV, memory = draft.propose(spec, params, run, rules, said, state.memory, keys_GB)

  # Tokens after which no other is wanted are padding: they may stand beyond the last position that
  # there is.
  place_T = jnp.arange(G + 1)
  wanted_B = jnp.where(state.done_B, 0, rules.maximum - state.n_B)
  fed: dict[str, Any] = {
    f'{own}input_ids': jnp.concatenate([state.last_B[:, None], drafted_BG], axis=1),
    f'{own}attention_mask': (place_T[None] < wanted_B[:, None]).astype(jnp.int32),
  }
  out = apply(spec, params, run=run, cache=with_history(state.cache), **fed)
  logits_BTV = _priced_ahead(
    rules, out['logits'], _put(state.tokens_BT, state.n_B, drafted_BG), state.n_B
  )
  if rules.knobs:
    p_BTV = jax.nn.softmax(
      jax.vmap(lambda x_BV: warp(x_BV, rules.knobs), 1, 1)(logits_BTV), axis=-1
    )
    stay_B, next_B = accept(
      p_BTV, q_BGV, drafted_BG, jax.vmap(jax.random.fold_in, (0, None))(keys_B, 0)
    )
  else:
    stay_B, next_B = accept_likeliest(jnp.argmax(logits_BTV, axis=-1).astype(jnp.int32), drafted_BG)

  new_BT = jnp.concatenate([drafted_BG, drafted_BG[:, :1]], axis=1)
  new_BT = jnp.where(place_T[None] == stay_B[:, None], next_B[:, None], new_BT)
  more_B, ended_B = _ends(rules, state, new_BT, jnp.minimum(stay_B + 1, wanted_B))
  keep_BT = place_T[None] < more_B[:, None]
  last_B = jnp.take_along_axis(new_BT, jnp.maximum(more_B - 1, 0)[:, None], axis=1)[:, 0]
  return State(
    tokens_BT=_put(state.tokens_BT, state.n_B, jnp.where(keep_BT, new_BT, NOTHING)),
    n_B=state.n_B + more_B,
    last_B=jnp.where(more_B > 0, last_B, state.last_B),
    done_B=state.done_B | ended_B,
    passes=state.passes + 1,
    cache=rewind(out['cache'], state.cache['slot'] + more_B),
    memory=draft.keep(memory, out, more_B),
  )


def _priced_ahead(
  rules: LogitsProcessors, logits_BTV: jax.Array, tokens_BT: jax.Array, n_B: jax.Array
) -> jax.Array:
  """The logits of tokens n, n + 1, ... of each row, each given those before it."""
  at = lambda logits_BV, t: priced(rules, logits_BV, tokens_BT, n_B + t)
  return jax.vmap(at, (1, 0), 1)(logits_BTV, jnp.arange(logits_BTV.shape[1]))


def _put(tokens_BT: jax.Array, n_B: jax.Array, new_BG: jax.Array) -> jax.Array:
  """`tokens_BT` with new ones from place `n_B` of each row on; what finds no place is dropped."""
  B, G = new_BG.shape
  return tokens_BT.at[jnp.arange(B)[:, None], n_B[:, None] + jnp.arange(G)[None]].set(
    new_BG, mode='drop'
  )


def _ends(
  rules: LogitsProcessors, state: State, new_BT: jax.Array, room_B: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """(how many of the first `room_B` tokens are said before the row's end, whether it is reached)."""
  stop_BT = rules.stop_V[new_BT] & (jnp.arange(new_BT.shape[1])[None] < room_B[:, None])
  ended_B = jnp.any(stop_BT, axis=1)
  more_B = jnp.where(ended_B, jnp.argmax(stop_BT, axis=1) + 1, room_B)
  return more_B, ended_B | (state.n_B + more_B >= rules.maximum)
