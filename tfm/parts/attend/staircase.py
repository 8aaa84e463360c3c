"""Dense causal attention that skips most of the masked-out half."""

from collections.abc import Iterator
import dataclasses

import jax
import jax.numpy as jnp

from tfm.parts.attend.base import Attend, scores_fit
from tfm.parts.attend.dense import DenseAttention

#: The minimum number of queries per chunk. With 16 it is as slow as dense attention on a CPU and
#: takes twice as long to compile.
SHORTEST = 32


@dataclasses.dataclass(frozen=True)
class Staircase(Attend):
  """Dense attention in `steps` chunks of queries, each with the keys up to its end.

  It computes (steps + 1) / (2 steps) of the scores. It applies to causal masks over tokens in the
  order of their positions, if `steps` divides the sequence length. All other calls (a cache, an
  encoder, given positions) use dense attention, with the same result.

  Attributes:
    steps: the number of chunks.
  """

  steps: int = 4

  def check(self) -> Iterator[str]:
    if self.steps < 1:
      yield f'steps={self.steps} is not a number of chunks. Expected at least 1.'

  def refuses(self, q_BTNH, k_BSKH, v_BSKH, q, k, scores):
    T = q_BTNH.shape[1]
    if not scores.ordered or k_BSKH.shape[1] != T:
      return 'it needs a causal mask over tokens in the order of their positions, without a cache'
    if T % self.steps:
      return f'{self.steps} chunks do not divide {T} tokens'
    return None

  def loses(self, platform, B, N, T, S):
    if not scores_fit(platform, B, N, T, S):
      return f'{B * N * T * S:,} scores are too many to store'
    if T // self.steps < SHORTEST:
      return f'chunks of {T // self.steps} queries are shorter than {SHORTEST}, too short to gain'
    return None

  def __call__(self, q_BTNH, k_BSKH, v_BSKH, q, k, scores, reduce):
    dense, T = DenseAttention(), q_BTNH.shape[1]
    if self.refuses(q_BTNH, k_BSKH, v_BSKH, q, k, scores) is not None:
      return dense(q_BTNH, k_BSKH, v_BSKH, q, k, scores, reduce)
    length = T // self.steps
    part = lambda tree, start, stop: jax.tree.map(lambda a: a[:, start:stop], tree)

    def run(stop: int) -> jax.Array:
      queries = part((q_BTNH, q), stop - length, stop)
      keys, values, k_info = part((k_BSKH, v_BSKH, k), 0, stop)
      drop = None if scores.drop is None else dataclasses.replace(scores.drop, first=stop - length)
      chunk = dataclasses.replace(scores, drop=drop)
      return dense(queries[0], keys, values, queries[1], k_info, chunk, reduce)

    return jnp.concatenate([run(stop) for stop in range(length, T + 1, length)], axis=1)
