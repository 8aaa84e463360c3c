"""Rotary position of image patches: a part of each head by row, the rest by column
(arXiv:2403.13298).
"""

from collections.abc import Iterator
import dataclasses
from typing import Literal

import jax.numpy as jnp

from tfm.parts.relative.base import Relative
from tfm.parts.relative.rope import RoPE


@dataclasses.dataclass(frozen=True)
class Axial(Relative):
  """The first half of a head is rotated by the row of a patch, the second half by its column, as in
  `rope`.

  Tokens that are no patch (class and register tokens) are not rotated. Images of any size share the
  same angles.

  Attributes: base: angles of pair h are place * base^(-2h / (H / 2)). Images have few rows, so it
    is smaller than for text. layout: which numbers of a half are a pair (see `RoPE`).
  """

  base: float = 100.0
  layout: Literal['halves', 'interleaved'] = 'halves'

  def check(self) -> Iterator[str]:
    if self.base <= 1:
      yield f'base={self.base} does not make wavelengths longer. Expected more than 1, usually 100.'

  def fits(self, head_dim):
    if head_dim % 4:
      yield f'rotates pairs of both halves of a head, and head_dim={head_dim}. Expected a multiple of 4.'

  @property
  def reads(self):
    return frozenset({'grid'})

  def places(self, info):
    return info.extras['grid']

  def rotate(self, x_BTNH, pos_BT2):
    rope, halves = RoPE(self.base, self.layout), jnp.split(x_BTNH, 2, -1)
    at_BT2 = jnp.maximum(pos_BT2, 0)  # -1: not a patch
    return jnp.concatenate([rope.rotate(half, at_BT2[..., i]) for i, half in enumerate(halves)], -1)
