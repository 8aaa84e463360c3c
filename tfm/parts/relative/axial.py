"""Axial rotary position embedding for image patches."""

from collections.abc import Iterator
import dataclasses
from typing import Literal

import jax.numpy as jnp

from tfm.parts.relative.base import Relative
from tfm.parts.relative.rope import RoPE


@dataclasses.dataclass(frozen=True)
class Axial(Relative):
  """RoPE by patch row in the first half of a head, by column in the second (arXiv:2403.13298).

  Tokens that are not patches (class and register tokens) are not rotated. Images of any size use
  the same angles.

  Attributes:
    base: the angle of pair h is place * base^(-2h / (H / 2)). Images have few rows, so it is
      smaller than for text.
    layout: the pairing of entries within a half (see `RoPE`).
  """

  base: float = 100.0
  layout: Literal['halves', 'interleaved'] = 'halves'

  def check(self) -> Iterator[str]:
    if self.base <= 1:
      yield f'base={self.base} does not increase wavelengths. Expected more than 1, usually 100.'

  def fits(self, head_dim):
    if head_dim % 4:
      yield f'head_dim={head_dim} has no pairs in both halves. Expected a multiple of 4.'

  @property
  def reads(self):
    return frozenset({'grid'})

  def places(self, info):
    return info.extras['grid']

  def rotate(self, x_BTNH, pos_BT2):
    rope, halves = RoPE(self.base, self.layout), jnp.split(x_BTNH, 2, -1)
    at_BT2 = jnp.maximum(pos_BT2, 0)  # -1: not a patch
    rotated = [rope.rotate(half, at_BT2[..., i]) for i, half in enumerate(halves)]
    return jnp.concatenate(rotated, -1)
