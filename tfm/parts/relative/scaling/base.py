"""RoPE scaling for contexts that are longer than in training."""

from collections.abc import Iterator
import dataclasses

import numpy as np

from tfm.core.registry import Part


@dataclasses.dataclass(frozen=True)
class Scaling(Part):
  """No scaling. Other scalings derive from it."""

  def scale(self, frequency_h: np.ndarray, base: float) -> tuple[np.ndarray, float]:
    """Return scaled frequencies and a factor of cos and sin.

    Frequencies are radians per position, float64 `[d / 2]`.
    """
    return frequency_h, 1.0

  def fits(self, pairs: int) -> Iterator[str]:
    """Yield a sentence for each field that does not fit a head with `pairs` rotated pairs."""
    return iter(())

  @property
  def score_scale(self) -> float:
    """A factor of attention scores, in addition to the factor of cos and sin."""
    return 1.0

  @property
  def max_positions(self) -> int | None:
    """The maximum sequence length of this configuration; None: any length."""
    return None

  def serving(self, length: int) -> 'Scaling':
    """Return the scaling for sequences of up to `length` tokens, by default itself."""
    return self


def wavelengths(frequency_h: np.ndarray) -> np.ndarray:
  """Return the number of positions per full turn."""
  return 2 * np.pi / frequency_h
