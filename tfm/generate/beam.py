"""Beam search: the continuation with the best log probability a token, among the few best prefixes
at each length.
"""

import dataclasses
import functools
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp

from tfm.generate.logits_processors import LogitsProcessors, priced
from tfm.generate.penalties import NOTHING
from tfm.generate.prefix_sharing import Fan
from tfm.generate.prompt_cache import Start
from tfm.generate.step import first_pass
from tfm.model.cache import fanned, rows
from tfm.model.spec import Model
from tfm.model.transformer import apply
from tfm.parts.context import Run


@struct.dataclass
class Aims:
  """What is searched for, as arrays: ended beams count log p / length ** `length_penalty`.

  A prompt is done with once it has as many ended beams as are kept and (`eager`: that is all;
  `patient`: the best open one would count no more than the worst of them at its longest; else: at
  its length now)."""

  length_penalty: jax.Array
  eager: jax.Array
  patient: jax.Array


@struct.dataclass
class Beams:
  """Open beams and ended ones, best first: tokens `[B, K, room]`, and log p or what it counts
  (-inf: there is none).

  `over` says which prompts are done with, `n` how many tokens the open beams have.
  """

  open_BKT: jax.Array
  logp_BK: jax.Array
  best_BKT: jax.Array
  worth_BK: jax.Array
  over_B: jax.Array
  n: jax.Array


@struct.dataclass
class Begun:
  """The logits after each prompt that differs, and what is cached of them, a row each."""

  logits_BV: jax.Array
  cache: Any


@struct.dataclass
class Turn:
  """Beams, log p of each with each next token `[B, K, V]`, whether that ends it, and the cache, a
  row a beam.
  """

  beams: Beams
  total_BKV: jax.Array
  ends_BKV: jax.Array
  cache: Any


@struct.dataclass
class Best:
  """Some next tokens of a prompt's beams, best first, `[B, J]`: log p, the beam, the token."""

  logp_BJ: jax.Array
  from_BJ: jax.Array
  token_BJ: jax.Array


@functools.partial(jax.jit, static_argnames=('spec', 'run', 'slots', 'chunk'))
def begin(
  spec: Model, params: Any, start: Start, rules: LogitsProcessors, fan: Fan | None = None, *,
  run: Run, slots: int, chunk: int | None = None,
) -> Begun:  # fmt: skip
  """One pass over each prompt (or `chunk` tokens at a time)."""
  out = first_pass(spec, params, start, rules, fan, run=run, slots=slots, chunk=chunk)
  return Begun(out['logits'][:, -1], out['cache'])


@functools.partial(jax.jit, static_argnames=('spec', 'beams', 'room', 'run'))
def search(
  spec: Model, params: Any, begun: Begun, rules: LogitsProcessors, aims: Aims,
  fan: Fan | None = None, *,
  beams: int, room: int, run: Run,
) -> jax.Array:  # fmt: skip
  """The best continuation of each prompt, `[B, room]`, `NOTHING` after its end."""

  def one(carry):
    state, cache, from_BK = carry
    turn = proceed(spec, params, state, from_BK, cache, rules, run=run)
    state, from_BK = extend(turn, rules, aims)
    return state, turn.cache, from_BK

  turn = opened(begun, rules, fan, beams=beams, room=room, run=run)
  state, from_BK = extend(turn, rules, aims)
  going = lambda carry: ~jnp.all(carry[0].over_B)
  state, *_ = jax.lax.while_loop(going, one, (state, turn.cache, from_BK))
  return state.best_BKT[:, 0]


def opened(
  begun: Begun, rules: LogitsProcessors, fan: Fan | None = None, *, beams: int, room: int, run: Run
) -> Turn:
  """The turn after the prompts: from here on each has `beams` rows of its own."""
  state = _start(len(rules.keys_B), beams, room)
  if fan is not None:
    return _turn(
      state, begun.logits_BV[fan.each], fanned(begun.cache, fan.each, fan.origin, fan.table), rules
    )
  each = jnp.repeat(jnp.arange(len(rules.keys_B)), beams)
  return _turn(state, begun.logits_BV[each], rows(begun.cache, run.cache, each), rules)


def proceed(
  spec: Model,
  params: Any,
  state: Beams,
  from_BK: jax.Array,
  cache: Any,
  rules: LogitsProcessors,
  *,
  run: Run,
) -> Turn:
  """The next turn: one pass over the last token of each open beam, which goes on from row `from_BK`
  of its prompt's.
  """
  name = 'input_ids' if spec.encoder is None else 'decoder_input_ids'
  B, K = from_BK.shape
  # Only what a mixer keeps differs between the beams of a prompt; what was read of an encoder is
  # the same.
  cache = rows(cache, run.cache, (K * jnp.arange(B)[:, None] + from_BK).reshape(B * K), cross=False)
  last_BK = jax.lax.dynamic_index_in_dim(state.open_BKT, state.n - 1, 2, keepdims=False)
  fed: dict[str, Any] = {name: last_BK.reshape(B * K, 1)}
  out = apply(spec, params, run=run, cache=cache, logits_to_keep=1, **fed)
  return _turn(state, out['logits'][:, -1], out['cache'], rules)


def _start(B: int, K: int, room: int) -> Beams:
  nothing_BKT = jnp.full((B, K, room), NOTHING, jnp.int32)
  # All beams are alike to begin with, so only the first is open.
  logp_BK = jnp.broadcast_to(jnp.where(jnp.arange(K) == 0, 0.0, -jnp.inf)[None], (B, K))
  worth_BK = jnp.full((B, K), -jnp.inf)
  return Beams(nothing_BKT, logp_BK, nothing_BKT, worth_BK, jnp.zeros(B, bool), jnp.int32(0))


def _turn(state: Beams, logits: jax.Array, cache: Any, rules: LogitsProcessors) -> Turn:
  """The turn of logits `[B K, V]`."""
  B, K, room = state.open_BKT.shape
  n = state.n
  rules = dataclasses.replace(rules, prompt_BS=jnp.repeat(rules.prompt_BS, K, axis=0))
  logp = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
  logp = priced(rules, logp, state.open_BKT.reshape(B * K, room), jnp.broadcast_to(n, (B * K,)))
  total_BKV = state.logp_BK[..., None] + logp.reshape(B, K, -1)
  ends_BKV = jnp.broadcast_to(
    (rules.stop_V | (n + 1 >= rules.maximum))[None, None], total_BKV.shape
  )
  return Turn(state, total_BKV, ends_BKV, cache)


def extend(turn: Turn, rules: LogitsProcessors, aims: Aims) -> tuple[Beams, jax.Array]:
  """(the beams with one more token, the beam that each open one goes on from)."""
  state, K, n = turn.beams, turn.total_BKV.shape[1], turn.beams.n
  # A beam ends where one of the K best of all, open or not, is a token that ends it.
  best = _best(turn.total_BKV, K)
  ends_BK = jax.vmap(lambda ends_KV, k, v: ends_KV[k, v])(
    turn.ends_BKV, best.from_BJ, best.token_BJ
  )
  worth_BK = jnp.where(ends_BK & ~state.over_B[:, None], best.logp_BJ, -jnp.inf)
  worth_BK /= (n + 1).astype(jnp.float32) ** aims.length_penalty
  both_BJ = jnp.concatenate([state.worth_BK, worth_BK], axis=1)
  worth_BK, kept_BK = jax.lax.top_k(both_BJ, K)
  ends_BKT = _with(state.open_BKT, best, n)
  best_BKT = _take(jnp.concatenate([state.best_BKT, ends_BKT], axis=1), kept_BK)

  more = likeliest(turn, K)
  longest = jnp.where(aims.patient & (aims.length_penalty > 0), rules.maximum, n + 1)
  hope_B = more.logp_BJ[:, 0] / longest.astype(jnp.float32) ** aims.length_penalty
  full_B = jnp.all(worth_BK > -jnp.inf, axis=1)
  over_B = (full_B & (aims.eager | (hope_B <= worth_BK[:, -1]))) | (n + 1 >= rules.maximum)
  # Without an open beam there is nothing to go on with.
  over_B |= state.over_B | (more.logp_BJ[:, 0] == -jnp.inf)
  state = Beams(_with(state.open_BKT, more, n), more.logp_BJ, best_BKT, worth_BK, over_B, n + 1)
  return state, more.from_BJ


def likeliest(turn: Turn, J: int) -> Best:
  """The J best next tokens of those that end no beam; -inf where there are fewer."""
  return _best(jnp.where(turn.ends_BKV, -jnp.inf, turn.total_BKV), J)


def _best(total_BKV: jax.Array, J: int) -> Best:
  """The J best of all beams' next tokens, best first."""
  B, _, V = total_BKV.shape
  logp_BJ, index_BJ = jax.lax.top_k(total_BKV.reshape(B, -1), J)
  return Best(logp_BJ, index_BJ // V, index_BJ % V)


def _with(tokens_BKT: jax.Array, best: Best, n: jax.Array) -> jax.Array:
  """The beams that `best` goes on from, with its tokens at place n."""
  tokens_BKT = _take(tokens_BKT, best.from_BJ)
  return jax.lax.dynamic_update_index_in_dim(tokens_BKT, best.token_BJ.astype(jnp.int32), n, 2)


def _take(x_BJT: jax.Array, index_BK: jax.Array) -> jax.Array:
  return jnp.take_along_axis(x_BJT, index_BK[..., None], axis=1)
