"""Speculative decoding (arXiv:2211.17192): one pass of the model verifies drafted tokens."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from tfm.generate.accept import accept, accept_greedy
from tfm.generate.decode_loop import State
from tfm.generate.drafts import Draft, NewTokens
from tfm.generate.logits_processors import LogitsProcessors, process_logits
from tfm.generate.penalties import NOTHING
from tfm.generate.sampling import warp
from tfm.model.cache import rewind, with_history
from tfm.model.spec import Model
from tfm.model.stack import Params
from tfm.model.transformer import apply
from tfm.parts.context import Run


@functools.partial(
  jax.jit, static_argnames=('spec', 'draft_length', 'run'), donate_argnames='state'
)
def speculative_loop(
  spec: Model,
  params: Params,
  state: State,
  processors: LogitsProcessors,
  draft: Draft,
  until: jax.Array,
  *,
  draft_length: int,
  run: Run,
) -> State:
  """Generate until every sequence has `until` new tokens or has ended.

  Args:
    spec: The model.
    params: Its parameters.
    state: The state to continue from. Its buffers are donated.
    processors: How tokens are sampled.
    draft: Proposes tokens.
    until: The number of new tokens to reach, a scalar.
    draft_length: The number of tokens proposed per round.
    run: Kernels and precision.

  Returns:
    The new state. Sequences may have up to `draft_length` more tokens than `until`.
  """
  one = lambda state: _round(spec, params, state, processors, draft, draft_length, run)
  return jax.lax.while_loop(lambda s: jnp.any(~s.done_B & (s.n_B < until)), one, state)


def _round(
  spec: Model,
  params: Params,
  state: State,
  processors: LogitsProcessors,
  draft: Draft,
  G: int,
  run: Run,
) -> State:
  """Return the state with 1 to G + 1 more tokens in each running sequence."""
  prefix = '' if spec.encoder is None else 'decoder_'
  # The number of tokens differs from every earlier round, so the keys do too.
  keys_B = jax.vmap(jax.random.fold_in)(processors.keys_B, state.n_B)
  fold_in_all = jax.vmap(jax.random.fold_in, (0, None))
  keys_GB = jax.vmap(lambda g: fold_in_all(keys_B, g))(1 + jnp.arange(G))
  new = NewTokens(state.tokens_BT, state.n_B, state.last_B)
  drafted_BG, q_BGV, draft_state = draft.propose(
    spec, params, run, processors, new, state.draft_state, keys_GB
  )

  # Tokens beyond the maximum are padding, because there may be no positions for them.
  place_T = jnp.arange(G + 1)
  left_B = jnp.where(state.done_B, 0, processors.maximum - state.n_B)
  inputs: dict[str, Any] = {
    f'{prefix}input_ids': jnp.concatenate([state.last_B[:, None], drafted_BG], axis=1),
    f'{prefix}attention_mask': (place_T[None] < left_B[:, None]).astype(jnp.int32),
  }
  out = apply(spec, params, run=run, cache=with_history(state.cache), **inputs)
  with_drafts_BT = _write(state.tokens_BT, state.n_B, drafted_BG)
  logits_BTV = _process_all(processors, out['logits'], with_drafts_BT, state.n_B)
  accepted_B, next_B = _accept(processors, logits_BTV, q_BGV, drafted_BG, fold_in_all(keys_B, 0))

  new_BT = jnp.concatenate([drafted_BG, drafted_BG[:, :1]], axis=1)
  new_BT = jnp.where(place_T[None] == accepted_B[:, None], next_B[:, None], new_BT)
  more_B, ended_B = _count_kept(processors, state, new_BT, jnp.minimum(accepted_B + 1, left_B))
  keep_BT = place_T[None] < more_B[:, None]
  last_B = jnp.take_along_axis(new_BT, jnp.maximum(more_B - 1, 0)[:, None], axis=1)[:, 0]
  return State(
    tokens_BT=_write(state.tokens_BT, state.n_B, jnp.where(keep_BT, new_BT, NOTHING)),
    n_B=state.n_B + more_B,
    last_B=jnp.where(more_B > 0, last_B, state.last_B),
    done_B=state.done_B | ended_B,
    passes=state.passes + 1,
    cache=rewind(out['cache'], state.cache['slot'] + more_B),
    draft_state=draft.update(draft_state, out, more_B),
  )


def _accept(
  processors: LogitsProcessors,
  logits_BTV: jax.Array,
  q_BGV: jax.Array | None,
  drafted_BG: jax.Array,
  keys_B: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Return (the number of accepted tokens, the token after them), both int32 `[B]`."""
  if not processors.sampling:
    return accept_greedy(jnp.argmax(logits_BTV, axis=-1).astype(jnp.int32), drafted_BG)
  warped_BTV = jax.vmap(lambda x_BV: warp(x_BV, processors.sampling), 1, 1)(logits_BTV)
  return accept(jax.nn.softmax(warped_BTV, axis=-1), q_BGV, drafted_BG, keys_B)


def _process_all(
  processors: LogitsProcessors, logits_BTV: jax.Array, tokens_BT: jax.Array, n_B: jax.Array
) -> jax.Array:
  """Return the processed logits of tokens n, n + 1, ..., each given the tokens before it."""
  at = lambda logits_BV, t: process_logits(processors, logits_BV, tokens_BT, n_B + t)
  return jax.vmap(at, (1, 0), 1)(logits_BTV, jnp.arange(logits_BTV.shape[1]))


def _write(tokens_BT: jax.Array, n_B: jax.Array, new_BG: jax.Array) -> jax.Array:
  """Return `tokens_BT` with new tokens from index `n_B` on; those beyond the end are dropped."""
  B, G = new_BG.shape
  place_BG = n_B[:, None] + jnp.arange(G)[None]
  return tokens_BT.at[jnp.arange(B)[:, None], place_BG].set(new_BG, mode='drop')


def _count_kept(
  processors: LogitsProcessors, state: State, new_BT: jax.Array, limit_B: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Return (the number of the first `limit_B` tokens up to the end, whether the end is reached)."""
  stop_BT = processors.stop_V[new_BT] & (jnp.arange(new_BT.shape[1])[None] < limit_B[:, None])
  ended_B = jnp.any(stop_BT, axis=1)
  more_B = jnp.where(ended_B, jnp.argmax(stop_BT, axis=1) + 1, limit_B)
  return more_B, ended_B | (state.n_B + more_B >= processors.maximum)
