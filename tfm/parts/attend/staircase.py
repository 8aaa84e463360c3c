"""Dense attention without the half that a causal mask throws away."""

from collections.abc import Iterator
import dataclasses

import jax
import jax.numpy as jnp

from tfm.parts.attend.base import Attend, few
from tfm.parts.attend.dense import DenseAttention

#: Queries a run from which on it pays: of 16 it takes as long as dense on a CPU, and twice as long
#: to compile.
SHORTEST = 32


@dataclasses.dataclass(frozen=True)
class Staircase(Attend):
  """Each of `steps` runs of queries densely attends to the keys up to its end: (steps + 1) / (2
  steps) of the scores.

  That is for causal masks over tokens that stand in the order of their positions and for rows that
  `steps` divides; anything else (a cache, an encoder, positions given by hand) is dense, which says
  the same."""

  steps: int = 4

  def check(self) -> Iterator[str]:
    if self.steps < 1:
      yield f'steps={self.steps} is no number of runs of queries. Expected at least 1.'

  def refuses(self, q_BTNH, k_BSKH, v_BSKH, q, k, scores):
    T = q_BTNH.shape[1]
    if not scores.ordered or k_BSKH.shape[1] != T:
      return 'it is for causal masks over tokens that stand in the order of their positions, without a cache.'
    if T % self.steps:
      return f'{T} tokens cannot be cut into {self.steps} runs.'
    return None

  def loses(self, platform, B, N, T, S):
    if not few(platform, B, N, T, S):
      return f'{B * N * T * S:,} scores are too many to keep.'
    if T // self.steps < SHORTEST:
      return (
        f'runs of {T // self.steps} queries save less than they cost; from {SHORTEST} on they pay.'
      )
    return None

  def __call__(self, q_BTNH, k_BSKH, v_BSKH, q, k, scores, reduce):
    dense, T = DenseAttention(), q_BTNH.shape[1]
    if self.refuses(q_BTNH, k_BSKH, v_BSKH, q, k, scores) is not None:
      return dense(q_BTNH, k_BSKH, v_BSKH, q, k, scores, reduce)
    length = T // self.steps
    part = lambda tree, start, stop: jax.tree.map(lambda a: a[:, start:stop], tree)

    def run(stop: int) -> jax.Array:
      asking_BTNH, asking = part((q_BTNH, q), stop - length, stop)
      seen_k, seen_v, seen = part((k_BSKH, v_BSKH, k), 0, stop)
      drop = None if scores.drop is None else dataclasses.replace(scores.drop, first=stop - length)
      return dense(
        asking_BTNH, seen_k, seen_v, asking, seen, dataclasses.replace(scores, drop=drop), reduce
      )

    return jnp.concatenate([run(stop) for stop in range(length, T + 1, length)], axis=1)
