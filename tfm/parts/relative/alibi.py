"""Attention with linear biases (ALiBi)."""

from collections.abc import Iterator
import dataclasses
import math

import jax.numpy as jnp

from tfm.parts.relative.base import Relative


@dataclasses.dataclass(frozen=True)
class ALiBi(Relative):
  """Linear biases -m_h |i - j| of the scores (arXiv:2108.12409).

  The slopes are m_h = 2^(-max_bias h / P) for the largest power of two P <= N, then every other
  slope of 2 P.

  Attributes:
    max_bias: the exponent of the smallest slope.
    scale: a factor of all slopes (Falcon: H^-1/2).

  Note:
    The bias i - j of the paper needs a causal mask; the absolute distance also serves encoders.
  """

  max_bias: float = 8.0
  scale: float = 1.0

  def check(self) -> Iterator[str]:
    if self.scale <= 0:
      yield f'scale={self.scale} is not positive. Expected more than 0, usually 1.'

  @property
  def biased(self):
    return True

  def bias(self, n_heads, q, k):
    slope_N = jnp.asarray(slopes(n_heads, self.max_bias), jnp.float32) * self.scale
    gap_BTS = jnp.abs(q.positions[:, :, None] - k.positions[:, None, :]).astype(jnp.float32)
    return -slope_N[None, :, None, None] * gap_BTS[:, None]


def slopes(n_heads: int, max_bias: float = 8.0) -> list[float]:
  """Return the slope of every head, steepest first within each power of two."""
  power = 2 ** math.floor(math.log2(n_heads))
  first = [2.0 ** (-max_bias * h / power) for h in range(1, power + 1)]
  between = [2.0 ** (-max_bias * h / (2 * power)) for h in range(1, 2 * power + 1, 2)]
  return first + between[: n_heads - power]
