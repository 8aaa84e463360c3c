"""Beams that end with a text: after each pass the host is asked which of the next tokens complete
one.
"""

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from tfm.generate import beam
from tfm.generate.logits_processors import LogitsProcessors
from tfm.generate.prefix_sharing import Fan
from tfm.generate.prompts import Tokenizer
from tfm.model.spec import Model
from tfm.parts.context import Run

_opened = jax.jit(beam.opened, static_argnames=('beams', 'room', 'run'))
_extend = jax.jit(beam.extend)
_proceed = jax.jit(beam.proceed, static_argnames=('spec', 'run'), donate_argnames='cache')
_likeliest = jax.jit(beam.likeliest, static_argnames='J')


def held(tokenizer: Tokenizer, stops: Sequence[str]) -> Callable[[list[int]], bool]:
  """Whether the text of some ids holds one of `stops`."""

  def holds(ids: list[int]) -> bool:
    text = tokenizer.decode(ids)
    return any(stop in text for stop in stops)

  return holds


def search(
  spec: Model,
  params: Any,
  begun: beam.Begun,
  rules: LogitsProcessors,
  aims: beam.Aims,
  holds: Callable[[list[int]], bool],
  fan: Fan | None = None,
  *,
  beams: int,
  room: int,
  run: Run,
) -> NDArray[np.int32]:
  """`beam.search` in which a beam ends, too, with the token after which `holds` is true of its new
  tokens.

  *Cost*: a call a pass, which reads the texts of 2 K beams a prompt from their beginnings.
  """
  turn = _opened(begun, rules, fan, beams=beams, room=room, run=run)
  while True:
    turn = _ended(turn, holds)
    state, from_BK = _extend(turn, rules, aims)
    if np.all(state.over_B):
      return np.asarray(state.best_BKT[:, 0])
    turn = _proceed(spec, params, state, from_BK, turn.cache, rules, run=run)


def _ended(turn: beam.Turn, holds: Callable[[list[int]], bool]) -> beam.Turn:
  """The turn with all of the tokens marked that end a beam, among those that `beam.extend` looks
  at.
  """
  _, K, V = turn.total_BKV.shape
  J = K * min(2, V)
  state = jax.device_get(turn.beams)
  while True:
    found = _likeliest(turn, J=J)
    best = jax.device_get(found)
    hit_BJ = np.zeros(best.token_BJ.shape, bool)
    for b, j in zip(*np.nonzero((best.logp_BJ > -np.inf) & ~state.over_B[:, None]), strict=True):
      said = state.open_BKT[b, best.from_BJ[b, j], : state.n]
      hit_BJ[b, j] = holds([*said.tolist(), int(best.token_BJ[b, j])])
    turn = _marked(turn, found, hit_BJ)
    # Of the J best, the K that go on must all have been asked about.
    if (hit_BJ.sum(axis=1) <= J - K).all() or not hit_BJ.any():
      return turn


@jax.jit
def _marked(turn: beam.Turn, found: beam.Best, hit_BJ: jax.Array) -> beam.Turn:
  mark = lambda ends_KV, k, v, hit: ends_KV.at[k, v].max(hit)
  ends_BKV = jax.vmap(mark)(turn.ends_BKV, found.from_BJ, found.token_BJ, hit_BJ)
  return dataclasses.replace(turn, ends_BKV=ends_BKV)
