"""What mixers have in common whose tokens look at each other: a mask, and a relative position."""

from typing import Any

from flax import linen as nn

from tfm.parts.context import Dims
from tfm.parts.mask.base import Mask
from tfm.parts.mixer.base import Mixer
from tfm.parts.relative.base import Relative


class Looking(Mixer):
  """A mixer with fields `relative`, which tells how far apart tokens stand, and `mask`, which says who sees whom."""

  relative: Relative
  mask: Mask

  def pairs(self, length):
    return self.mask.pairs(length) / length

  @property
  def max_positions(self):
    return self.relative.max_positions

  @property
  def causal(self):
    return self.mask.causal

  @property
  def reads_prefix(self):
    return self.mask.reads_prefix

  @property
  def reads_types(self):
    return self.relative.reads_types

  @property
  def masked(self):
    return True

  @property
  def lookback(self):
    return self.mask.lookback


def make_relative(spec: Looking, dims: Dims) -> Any:
  """The relative position of a mixer's module; its parameters, if it has any, stand under that name."""
  relative = spec.relative.make(dims)
  return relative.copy(name='relative') if isinstance(relative, nn.Module) else relative
