"""Attention with linear biases (arXiv:2108.12409)."""

from collections.abc import Iterator
import dataclasses
import math

import jax.numpy as jnp

from tfm.parts.relative.base import Relative


@dataclasses.dataclass(frozen=True)
class ALiBi(Relative):
  """-m_h |i - j|, with slopes m_h = 2^(-max_bias h / P) for the largest power of two P <= N, then
  every other slope of 2P; all of them times `scale` (Falcon's H^-1/2).

  *Differs*: the paper's i - j needs a causal mask; the distance serves encoders too.
  """

  max_bias: float = 8.0
  scale: float = 1.0

  def check(self) -> Iterator[str]:
    if self.scale <= 0:
      yield f'scale={self.scale} does not make far keys count less. Expected more than 0, usually 1.'

  @property
  def biased(self):
    return True

  def bias(self, n_heads, q, k):
    slope_N = jnp.asarray(slopes(n_heads, self.max_bias), jnp.float32) * self.scale
    gap_BTS = jnp.abs(q.positions[:, :, None] - k.positions[:, None, :]).astype(jnp.float32)
    return -slope_N[None, :, None, None] * gap_BTS[:, None]


def slopes(n_heads: int, max_bias: float = 8.0) -> list[float]:
  """The slope of every head, steepest first within each run of a power of two."""
  power = 2 ** math.floor(math.log2(n_heads))
  first = [2.0 ** (-max_bias * h / power) for h in range(1, power + 1)]
  between = [2.0 ** (-max_bias * h / (2 * power)) for h in range(1, 2 * power + 1, 2)]
  return first + between[: n_heads - power]
