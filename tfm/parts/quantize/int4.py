"""Weights of 4-bit integers."""

import dataclasses

from tfm.parts.quantize.base import LowPrecision


@dataclasses.dataclass(frozen=True)
class Int4(LowPrecision):
  """4-bit weights with a scale per 32 inputs; inputs and gradients in the compute dtype.

  In training, weights are rounded in the forward pass only (quantization-aware training).

  Attributes:
    weights: as in `LowPrecision`; 'nf4' has levels of equal probability (arXiv:2305.14314).
    tile: as in `LowPrecision`.
  """

  weights: str = 'int4'
  tile: int | None = 32
