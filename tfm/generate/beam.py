"""Beam search: the continuation with the best length-normalised log probability."""

import dataclasses
import functools
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp

from tfm.generate.decode_loop import forward_prompts
from tfm.generate.logits_processors import LogitsProcessors, process_logits
from tfm.generate.penalties import NOTHING
from tfm.generate.prefix_sharing import Expansion
from tfm.generate.prompt_cache import PrefillInputs
from tfm.model.cache import expand_blocks, select_sequences
from tfm.model.spec import Model
from tfm.model.stack import Params
from tfm.model.transformer import apply
from tfm.parts.context import Run


@struct.dataclass
class BeamScoring:
  """How finished beams are scored and when the search ends, as arrays.

  The score is log p / length ** `length_penalty`. The search of a prompt ends once all of its
  finished beams are found, under a condition on the best running beam.

  Attributes:
    length_penalty: The exponent.
    early: No condition (`early_stopping=True`).
    never: The running beam could not score higher at its maximum length (`early_stopping='never'`).
      Without either, it would not score higher if it finished now.
  """

  length_penalty: jax.Array
  early: jax.Array
  never: jax.Array


@struct.dataclass
class Beams:
  """Running and finished beams of each prompt, best first.

  Attributes:
    running_BKT: Tokens of running beams.
    logp_BK: Their log probabilities, -inf for none.
    finished_BKT: Tokens of finished beams.
    score_BK: Their scores, -inf for none.
    done_B: Whether the search of a prompt has ended.
    n: The number of tokens of the running beams, a scalar.
  """

  running_BKT: jax.Array
  logp_BK: jax.Array
  finished_BKT: jax.Array
  score_BK: jax.Array
  done_B: jax.Array
  n: jax.Array


@struct.dataclass
class PrefillOutput:
  """The logits after each distinct prompt `[B, V]`, and the cache of the prompts."""

  logits_BV: jax.Array
  cache: Any


@struct.dataclass
class Candidates:
  """The next tokens of all running beams, before the best are selected.

  Attributes:
    beams: The beams that the tokens extend.
    total_BKV: The log probability of each beam with each next token.
    ends_BKV: Whether the token finishes the beam.
    cache: The model's cache, one sequence per beam.
  """

  beams: Beams
  total_BKV: jax.Array
  ends_BKV: jax.Array
  cache: Any


@struct.dataclass
class TopTokens:
  """The best next tokens of a prompt, best first: log probability, beam index, token `[B, J]`."""

  logp_BJ: jax.Array
  beam_BJ: jax.Array
  token_BJ: jax.Array


@functools.partial(jax.jit, static_argnames=('spec', 'run', 'slots', 'chunk'))
def prefill(
  spec: Model, params: Params, prompts: PrefillInputs, processors: LogitsProcessors,
  expansion: Expansion | None = None, *,
  run: Run, slots: int, chunk: int | None = None,
) -> PrefillOutput:  # fmt: skip
  """Run the model over each prompt.

  Args:
    spec: The model.
    params: Its parameters.
    prompts: The prompts, one per sequence, with their caches.
    processors: How logits are processed.
    expansion: How sequences share the prompts. None: one each.
    run: Kernels and precision.
    slots: Cache slots per sequence.
    chunk: Prompt tokens per pass. None: all.

  Returns:
    The last logits and the cache.
  """
  out = forward_prompts(
    spec, params, prompts, processors, expansion, run=run, slots=slots, chunk=chunk
  )
  return PrefillOutput(out['logits'][:, -1], out['cache'])


@functools.partial(jax.jit, static_argnames=('spec', 'beams', 'new_slots', 'run'))
def search(
  spec: Model, params: Params, prefilled: PrefillOutput, processors: LogitsProcessors,
  scoring: BeamScoring,
  expansion: Expansion | None = None, *,
  beams: int, new_slots: int, run: Run,
) -> jax.Array:  # fmt: skip
  """Return the best continuation of each prompt.

  Args:
    spec: The model.
    params: Its parameters.
    prefilled: From `prefill`.
    processors: How logits are processed.
    scoring: How beams are scored.
    expansion: How beams share the cached prompts. None: copies.
    beams: Beams per prompt, K.
    new_slots: Slots for new tokens, T.
    run: Kernels and precision.

  Returns:
    int32 `[B, T]`, `NOTHING` after the end.
  """

  def one(carry: tuple[Any, ...]) -> tuple[Any, ...]:
    state, cache, beam_BK = carry
    candidates = next_candidates(spec, params, state, beam_BK, cache, processors, run=run)
    state, beam_BK = select_beams(candidates, processors, scoring)
    return state, candidates.cache, beam_BK

  candidates = first_candidates(
    prefilled, processors, expansion, beams=beams, new_slots=new_slots, run=run
  )
  state, beam_BK = select_beams(candidates, processors, scoring)
  running = lambda carry: ~jnp.all(carry[0].done_B)
  state, *_ = jax.lax.while_loop(running, one, (state, candidates.cache, beam_BK))
  return state.finished_BKT[:, 0]


def first_candidates(
  prefilled: PrefillOutput,
  processors: LogitsProcessors,
  expansion: Expansion | None = None,
  *,
  beams: int,
  new_slots: int,
  run: Run,
) -> Candidates:
  """Return the first candidates of each prompt, with `beams` sequences in the cache.

  Args:
    prefilled: From `prefill`.
    processors: How logits are processed.
    expansion: How beams share the cached prompts. None: copies.
    beams: Beams per prompt.
    new_slots: Slots for new tokens.
    run: The run that the cache was made with.

  Returns:
    The candidates for the first new token.
  """
  B = len(processors.keys_B)
  state = _empty_beams(B, beams, new_slots)
  if expansion is not None:
    index = expansion.prompt_B
    cache = expand_blocks(prefilled.cache, index, expansion.source, expansion.table)
  else:
    index = jnp.repeat(jnp.arange(B), beams)
    cache = select_sequences(prefilled.cache, run.cache, index)
  return _candidates(state, prefilled.logits_BV[index], cache, processors)


def next_candidates(
  spec: Model,
  params: Params,
  state: Beams,
  beam_BK: jax.Array,
  cache: Any,
  processors: LogitsProcessors,
  *,
  run: Run,
) -> Candidates:
  """Run the model over the last token of each running beam.

  Args:
    spec: The model.
    params: Its parameters.
    state: The beams.
    beam_BK: The beam of the previous step that each beam extends.
    cache: The cache of the previous step.
    processors: How logits are processed.
    run: Kernels and precision.

  Returns:
    The candidates for the next token.
  """
  name = 'input_ids' if spec.encoder is None else 'decoder_input_ids'
  B, K = beam_BK.shape
  # The beams of a prompt share the encoder output, so only self-attention caches are reordered.
  index = (K * jnp.arange(B)[:, None] + beam_BK).reshape(B * K)
  cache = select_sequences(cache, run.cache, index, cross=False)
  last_BK = jax.lax.dynamic_index_in_dim(state.running_BKT, state.n - 1, 2, keepdims=False)
  inputs: dict[str, Any] = {name: last_BK.reshape(B * K, 1)}
  out = apply(spec, params, run=run, cache=cache, logits_to_keep=1, **inputs)
  return _candidates(state, out['logits'][:, -1], out['cache'], processors)


def _empty_beams(B: int, K: int, new_slots: int) -> Beams:
  nothing_BKT = jnp.full((B, K, new_slots), NOTHING, jnp.int32)
  # All beams of a prompt are equal at first, so a single beam is running.
  logp_BK = jnp.broadcast_to(jnp.where(jnp.arange(K) == 0, 0.0, -jnp.inf)[None], (B, K))
  score_BK = jnp.full((B, K), -jnp.inf)
  return Beams(nothing_BKT, logp_BK, nothing_BKT, score_BK, jnp.zeros(B, bool), jnp.int32(0))


def _candidates(
  state: Beams, logits: jax.Array, cache: Any, processors: LogitsProcessors
) -> Candidates:
  """Return the candidates of logits `[B K, V]`."""
  B, K, T = state.running_BKT.shape
  n = state.n
  prompt_BS = jnp.repeat(processors.prompt_BS, K, axis=0)
  per_beam = dataclasses.replace(processors, prompt_BS=prompt_BS)
  logp = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
  tokens = state.running_BKT.reshape(B * K, T)
  logp = process_logits(per_beam, logp, tokens, jnp.broadcast_to(n, (B * K,)))
  total_BKV = state.logp_BK[..., None] + logp.reshape(B, K, -1)
  ends_V = processors.stop_V | (n + 1 >= processors.maximum)
  return Candidates(state, total_BKV, jnp.broadcast_to(ends_V[None, None], total_BKV.shape), cache)


def select_beams(
  candidates: Candidates, processors: LogitsProcessors, scoring: BeamScoring
) -> tuple[Beams, jax.Array]:
  """Select the best finished and running beams among the candidates.

  Args:
    candidates: The next tokens of all running beams.
    processors: The settings of the batch.
    scoring: How beams are scored.

  Returns:
    (the beams with one more token, the beam `[B, K]` that each running one extends).
  """
  state, K, n = candidates.beams, candidates.total_BKV.shape[1], candidates.beams.n
  # A beam finishes if its ending token is among the K best candidates, finished or running.
  best = _top(candidates.total_BKV, K)
  ends_BK = jax.vmap(lambda ends_KV, k, v: ends_KV[k, v])(
    candidates.ends_BKV, best.beam_BJ, best.token_BJ
  )
  score_BK = jnp.where(ends_BK & ~state.done_B[:, None], best.logp_BJ, -jnp.inf)
  score_BK /= (n + 1).astype(jnp.float32) ** scoring.length_penalty
  both_BJ = jnp.concatenate([state.score_BK, score_BK], axis=1)
  score_BK, kept_BK = jax.lax.top_k(both_BJ, K)
  ends_BKT = _append(state.running_BKT, best, n)
  finished_BKT = _take(jnp.concatenate([state.finished_BKT, ends_BKT], axis=1), kept_BK)

  running = top_unfinished(candidates, K)
  longest = jnp.where(scoring.never & (scoring.length_penalty > 0), processors.maximum, n + 1)
  bound_B = running.logp_BJ[:, 0] / longest.astype(jnp.float32) ** scoring.length_penalty
  full_B = jnp.all(score_BK > -jnp.inf, axis=1)
  done_B = full_B & (scoring.early | (bound_B <= score_BK[:, -1]))
  done_B |= n + 1 >= processors.maximum
  done_B |= state.done_B | (running.logp_BJ[:, 0] == -jnp.inf)
  running_BKT = _append(state.running_BKT, running, n)
  beams = Beams(running_BKT, running.logp_BJ, finished_BKT, score_BK, done_B, n + 1)
  return beams, running.beam_BJ


def top_unfinished(candidates: Candidates, J: int) -> TopTokens:
  """Return the J best next tokens that finish no beam; log p is -inf where there are fewer."""
  return _top(jnp.where(candidates.ends_BKV, -jnp.inf, candidates.total_BKV), J)


def _top(total_BKV: jax.Array, J: int) -> TopTokens:
  """Return the J best next tokens of all beams of each prompt, best first."""
  B, _, V = total_BKV.shape
  logp_BJ, index_BJ = jax.lax.top_k(total_BKV.reshape(B, -1), J)
  return TopTokens(logp_BJ, index_BJ // V, index_BJ % V)


def _append(tokens_BKT: jax.Array, top: TopTokens, n: jax.Array) -> jax.Array:
  """Return the beams that `top` extends, with its tokens at index n."""
  tokens_BKT = _take(tokens_BKT, top.beam_BJ)
  return jax.lax.dynamic_update_index_in_dim(tokens_BKT, top.token_BJ.astype(jnp.int32), n, 2)


def _take(x_BJT: jax.Array, index_BK: jax.Array) -> jax.Array:
  return jnp.take_along_axis(x_BJT, index_BK[..., None], axis=1)
