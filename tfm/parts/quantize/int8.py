"""Products of 8-bit integers."""

import dataclasses

from tfm.parts.quantize.base import LowPrecision


@dataclasses.dataclass(frozen=True)
class Int8(LowPrecision):
  """Integer products of the forward pass (arXiv:1712.05877); gradients in the compute dtype.

  With `gradients='int8'` the products of the backward pass are integer products too.

  Attributes:
    weights: as in `LowPrecision`.
    inputs: as in `LowPrecision`.
  """

  weights: str = 'int8'
  inputs: str | None = 'int8'
