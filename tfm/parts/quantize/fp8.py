"""Products of 8-bit floats."""

import dataclasses

from tfm.parts.quantize.base import LowPrecision


@dataclasses.dataclass(frozen=True)
class FP8(LowPrecision):
  """8-bit float products in both passes (arXiv:2209.05433).

  Weights and inputs have 4 exponent bits, gradients 5. Scales are those of the current step.

  Attributes:
    weights: as in `LowPrecision`.
    inputs: as in `LowPrecision`.
    gradients: as in `LowPrecision`.
  """

  weights: str = 'float8_e4m3fn'
  inputs: str | None = 'float8_e4m3fn'
  gradients: str | None = 'float8_e5m2'
