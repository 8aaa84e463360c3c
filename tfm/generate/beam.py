"""Beam search: the continuation with the best log probability a token, among the few best prefixes at each length."""

import dataclasses
import functools
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp

from tfm.generate.chunks import read
from tfm.generate.penalties import NOTHING
from tfm.generate.rules import Rules, priced
from tfm.model.cache import init_cache, rows
from tfm.model.spec import Model
from tfm.model.transformer import apply
from tfm.parts.context import Run


@struct.dataclass
class Aims:
  """What is searched for, as arrays: ended beams count log p / length ** `length_penalty`.

  A prompt is done with once it has as many ended beams as are kept and (`eager`: that is all; `patient`: the best open
  one would count no more than the worst of them at its longest; else: at its length now).
  """

  length_penalty: jax.Array
  eager: jax.Array
  patient: jax.Array


@struct.dataclass
class Beams:
  """Open beams and ended ones, best first: tokens `[B, K, room]`, and log p or what it counts (-inf: there is none).

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
  """Beams of one token, the beam that each goes on from `[B, K]`, and what is cached of the prompts, a row each."""

  beams: Beams
  from_BK: jax.Array
  cache: Any


@functools.partial(jax.jit, static_argnames=('spec', 'beams', 'run', 'slots', 'room', 'chunk'))
def begin(
  spec: Model, params: Any, inputs: dict[str, Any], rules: Rules, aims: Aims, cache: Any = None, *, beams: int,
  run: Run, slots: int, room: int, chunk: int | None = None,
) -> Begun:  # fmt: skip
  """One pass over each prompt (or `chunk` tokens at a time); a `cache` that is given holds what stands before."""
  B, source = inputs['input_ids'].shape
  if cache is None:
    cache = init_cache(spec, B, slots, run.precision.dtype('compute'), source, run.cache)
  out = read(spec, params, cache, inputs, run=run, chunk=chunk)
  each, rules = _each(B, beams, rules)
  return Begun(*_extend(_start(B, beams, room), out['logits'][:, -1][each], rules, aims), out['cache'])


@functools.partial(jax.jit, static_argnames=('spec', 'run'))
def search(spec: Model, params: Any, begun: Begun, rules: Rules, aims: Aims, *, run: Run) -> jax.Array:
  """The best continuation of each prompt, `[B, room]`, `NOTHING` after its end."""
  name = 'input_ids' if spec.encoder is None else 'decoder_input_ids'
  B, K = begun.from_BK.shape
  each, rules = _each(B, K, rules)

  def one(carry):
    state, cache, from_BK = carry
    # Only what a mixer keeps differs between the beams of a prompt; what was read of an encoder is the same.
    cache = rows(cache, run.cache, (K * jnp.arange(B)[:, None] + from_BK).reshape(B * K), cross=False)
    last_BK = jax.lax.dynamic_index_in_dim(state.open_BKT, state.n - 1, 2, keepdims=False)
    fed: dict[str, Any] = {name: last_BK.reshape(B * K, 1)}
    out = apply(spec, params, run=run, cache=cache, logits_to_keep=1, **fed)
    state, from_BK = _extend(state, out['logits'][:, -1], rules, aims)
    return state, out['cache'], from_BK

  going = lambda carry: ~jnp.all(carry[0].over_B)
  # From here on a prompt has K rows of its own.
  state, *_ = jax.lax.while_loop(going, one, (begun.beams, rows(begun.cache, run.cache, each), begun.from_BK))
  return state.best_BKT[:, 0]


def _each(B: int, K: int, rules: Rules) -> tuple[jax.Array, Rules]:
  """(the prompt of each of the B K rows, the rules for these)."""
  each = jnp.repeat(jnp.arange(B), K)
  return each, dataclasses.replace(rules, prompt_BS=rules.prompt_BS[each])


def _start(B: int, K: int, room: int) -> Beams:
  nothing_BKT = jnp.full((B, K, room), NOTHING, jnp.int32)
  # All beams are alike to begin with, so only the first is open.
  logp_BK = jnp.broadcast_to(jnp.where(jnp.arange(K) == 0, 0.0, -jnp.inf)[None], (B, K))
  worth_BK = jnp.full((B, K), -jnp.inf)
  return Beams(nothing_BKT, logp_BK, nothing_BKT, worth_BK, jnp.zeros(B, bool), jnp.int32(0))


def _extend(state: Beams, logits: jax.Array, rules: Rules, aims: Aims) -> tuple[Beams, jax.Array]:
  """(the beams with one more token, the beam that each open one goes on from), given logits `[B K, V]`."""
  B, K, room = state.open_BKT.shape
  n = state.n
  logp = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
  logp = priced(rules, logp, state.open_BKT.reshape(B * K, room), jnp.broadcast_to(n, (B * K,)))
  total_BKV = state.logp_BK[..., None] + logp.reshape(B, K, -1)
  stop_V = rules.stop_V | (n + 1 >= rules.maximum)

  # A beam ends where one of the K best of all, open or not, is a token that ends it.
  best = _best(total_BKV, K)
  worth_BK = jnp.where(stop_V[best.token_BK] & ~state.over_B[:, None], best.logp_BK, -jnp.inf)
  worth_BK /= (n + 1).astype(jnp.float32) ** aims.length_penalty
  both_BJ = jnp.concatenate([state.worth_BK, worth_BK], axis=1)
  worth_BK, kept_BK = jax.lax.top_k(both_BJ, K)
  ends_BKT = _with(state.open_BKT, best, n)
  best_BKT = _take(jnp.concatenate([state.best_BKT, ends_BKT], axis=1), kept_BK)

  more = _best(jnp.where(stop_V[None, None], -jnp.inf, total_BKV), K)
  longest = jnp.where(aims.patient & (aims.length_penalty > 0), rules.maximum, n + 1)
  hope_B = more.logp_BK[:, 0] / longest.astype(jnp.float32) ** aims.length_penalty
  full_B = jnp.all(worth_BK > -jnp.inf, axis=1)
  over_B = (full_B & (aims.eager | (hope_B <= worth_BK[:, -1]))) | (n + 1 >= rules.maximum)
  # Without an open beam there is nothing to go on with.
  over_B |= state.over_B | (more.logp_BK[:, 0] == -jnp.inf)
  state = Beams(_with(state.open_BKT, more, n), more.logp_BK, best_BKT, worth_BK, over_B, n + 1)
  return state, more.from_BK


@struct.dataclass
class _Best:
  logp_BK: jax.Array
  from_BK: jax.Array
  token_BK: jax.Array


def _best(total_BKV: jax.Array, K: int) -> _Best:
  """The K best of all beams' next tokens, best first."""
  B, _, V = total_BKV.shape
  logp_BK, index_BK = jax.lax.top_k(total_BKV.reshape(B, -1), K)
  return _Best(logp_BK, index_BK // V, index_BK % V)


def _with(tokens_BKT: jax.Array, best: _Best, n: jax.Array) -> jax.Array:
  """The beams that `best` goes on from, with its tokens at place n."""
  tokens_BKT = _take(tokens_BKT, best.from_BK)
  return jax.lax.dynamic_update_index_in_dim(tokens_BKT, best.token_BK.astype(jnp.int32), n, 2)


def _take(x_BJT: jax.Array, index_BK: jax.Array) -> jax.Array:
  return jnp.take_along_axis(x_BJT, index_BK[..., None], axis=1)
