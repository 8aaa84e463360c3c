"""Beam search with stop texts, which the host looks for after each pass of the model."""

from collections.abc import Callable, Sequence
import dataclasses

import jax
import numpy as np
from numpy.typing import NDArray

from tfm.generate import beam
from tfm.generate.logits_processors import LogitsProcessors
from tfm.generate.prefix_sharing import Expansion
from tfm.generate.prompts import Tokenizer
from tfm.model.spec import Model
from tfm.model.stack import Params
from tfm.parts.context import Run

#: Whether the text of some token ids contains a stop text.
StopCheck = Callable[[list[int]], bool]

_first_candidates = jax.jit(beam.first_candidates, static_argnames=('beams', 'new_slots', 'run'))
_select_beams = jax.jit(beam.select_beams)
_next_candidates = jax.jit(
  beam.next_candidates, static_argnames=('spec', 'run'), donate_argnames='cache'
)
_top_unfinished = jax.jit(beam.top_unfinished, static_argnames='J')


def stop_check(tokenizer: Tokenizer, stops: Sequence[str]) -> StopCheck:
  """Return a function: whether the text of token ids contains a stop text."""

  def contains_stop(ids: list[int]) -> bool:
    text = tokenizer.decode(ids)
    return any(stop in text for stop in stops)

  return contains_stop


def search(
  spec: Model,
  params: Params,
  prefilled: beam.PrefillOutput,
  processors: LogitsProcessors,
  scoring: beam.BeamScoring,
  contains_stop: StopCheck,
  expansion: Expansion | None = None,
  *,
  beams: int,
  new_slots: int,
  run: Run,
) -> NDArray[np.int32]:
  """Run `beam.search` where a beam also finishes with the token that completes a stop text.

  Each pass decodes the texts of 2 K beams per prompt on the host, from their first new token.

  Args:
    spec: The model.
    params: Its parameters.
    prefilled: From `beam.prefill`.
    processors: How logits are processed.
    scoring: How beams are scored.
    contains_stop: Whether new token ids contain a stop text.
    expansion: How beams share the cached prompts. None: copies.
    beams: Beams per prompt, K.
    new_slots: Slots for new tokens, T.
    run: Kernels and precision.

  Returns:
    The best continuation of each prompt, int32 `[B, T]`, `NOTHING` after its end.
  """
  candidates = _first_candidates(
    prefilled, processors, expansion, beams=beams, new_slots=new_slots, run=run
  )
  while True:
    candidates = _with_stops(candidates, contains_stop)
    state, beam_BK = _select_beams(candidates, processors, scoring)
    if np.all(state.done_B):
      return np.asarray(state.finished_BKT[:, 0])
    candidates = _next_candidates(
      spec, params, state, beam_BK, candidates.cache, processors, run=run
    )


def _with_stops(candidates: beam.Candidates, contains_stop: StopCheck) -> beam.Candidates:
  """Return the candidates with stop texts marked, for all tokens that can be selected."""
  _, K, V = candidates.total_BKV.shape
  J = K * min(2, V)
  state = jax.device_get(candidates.beams)
  while True:
    top = _top_unfinished(candidates, J=J)
    best = jax.device_get(top)
    hit_BJ = np.zeros(best.token_BJ.shape, bool)
    possible_BJ = (best.logp_BJ > -np.inf) & ~state.done_B[:, None]
    for b, j in zip(*np.nonzero(possible_BJ), strict=True):
      before = state.running_BKT[b, best.beam_BJ[b, j], : state.n]
      hit_BJ[b, j] = contains_stop([*before.tolist(), int(best.token_BJ[b, j])])
    candidates = _mark(candidates, top, hit_BJ)
    # The K best that remain running must be among the J that were checked.
    if (hit_BJ.sum(axis=1) <= J - K).all() or not hit_BJ.any():
      return candidates


@jax.jit
def _mark(candidates: beam.Candidates, top: beam.TopTokens, hit_BJ: jax.Array) -> beam.Candidates:
  mark = lambda ends_KV, k, v, hit: ends_KV.at[k, v].max(hit)
  ends_BKV = jax.vmap(mark)(candidates.ends_BKV, top.beam_BJ, top.token_BJ, hit_BJ)
  return dataclasses.replace(candidates, ends_BKV=ends_BKV)
