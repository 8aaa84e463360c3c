"""How RoPE's frequencies are stretched for contexts longer than those trained on."""

from collections.abc import Iterator
import dataclasses

import numpy as np

from tfm.core.registry import Part


@dataclasses.dataclass(frozen=True)
class Scaling(Part):
  """No stretching."""

  def scale(self, frequency_h: np.ndarray, base: float) -> tuple[np.ndarray, float]:
    """New frequencies (radians a position, float64 `[d / 2]`) and a factor for cos and sin."""
    return frequency_h, 1.0

  def fits(self, pairs: int) -> Iterator[str]:
    """Yield a sentence for each field that does not fit a head with that many rotated pairs."""
    return iter(())

  @property
  def score_scale(self) -> float:
    """What the scores are to be multiplied by, beside the factor for cos and sin."""
    return 1.0

  @property
  def max_positions(self) -> int | None:
    """The longest row that it is made for, where longer ones are stretched otherwise; None for any."""
    return None

  def serving(self, length: int) -> 'Scaling':
    """The same for rows of up to `length` tokens, where that is a choice; otherwise itself."""
    return self


def wavelengths(frequency_h: np.ndarray) -> np.ndarray:
  """Positions a full turn takes."""
  return 2 * np.pi / frequency_h
