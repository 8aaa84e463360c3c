"""Two mixers in parallel (Falcon-H1)."""

from collections.abc import Iterator
import dataclasses
from typing import Any

from flax import linen as nn
import jax

from tfm.core.module import Module
from tfm.parts.context import Ctx, Dims
from tfm.parts.mask.base import Mask
from tfm.parts.mixer.attention import Attention
from tfm.parts.mixer.base import Cache, Mixer
from tfm.parts.mixer.mamba2 import Mamba2


@dataclasses.dataclass(frozen=True)
class Sum(Mixer):
  """The weighted sum of two mixers in parallel (Falcon-H1, arXiv:2507.22448).

  The output is a left(b x) + c right(x).

  Attributes:
    left: a mixer without state per sequence, such as attention.
    right: a mixer without entries per token, such as Mamba-2.
    left_in: b, the factor of the left input.
    left_out: a, the factor of the left output.
    right_out: c, the factor of the right output.
  """

  left: Mixer = Attention()
  right: Mixer = Mamba2()
  left_in: float = 1.0
  left_out: float = 1.0
  right_out: float = 1.0

  def fits(self, d_model):
    yield from (f'left: {sentence}' for sentence in self.left.fits(d_model))
    yield from (f'right: {sentence}' for sentence in self.right.fits(d_model))

  def check(self) -> Iterator[str]:
    kinds = {'left': 'row', 'right': 'token'}
    for name, per in kinds.items():
      mixer: Mixer = getattr(self, name)
      if any(slot.per == per for slot in mixer.state(64).values()):
        kind = mixer.table().name_of(mixer)
        unit = {'row': 'sequence', 'token': 'token'}[per]
        yield (
          f'{name}={kind} has state per {unit}. '
          f'Expected attention on the left and a recurrence on the right.'
        )

  def make(self, dims):
    return _Sum(self, dims)

  def state(self, d_model):
    return {**self.left.state(d_model), **self.right.state(d_model)}

  def flops(self, d_model, pairs):
    return self.left.flops(d_model, pairs) + self.right.flops(d_model, pairs)

  def pairs(self, length):
    return self.left.pairs(length)

  def relative_dim(self, d_model):
    return self.left.relative_dim(d_model)

  def value_dim(self, d_model):
    return self.left.value_dim(d_model)

  @property
  def common(self):
    return self.left.common

  @property
  def lends(self):
    return self.left.lends

  @property
  def lender(self):
    return self.left.lender

  def key_shape(self, d_model):
    return self.left.key_shape(d_model)

  @property
  def max_positions(self):
    return self.left.max_positions

  @property
  def mask(self) -> Mask:
    """The tokens that a token depends on, as an attention mask."""
    left: Any = self.left
    right: Any = self.right
    return _Either(left.mask, right.mask)

  @property
  def causal(self):
    return self.left.causal and self.right.causal

  @property
  def lookback(self):
    return self.left.lookback

  @property
  def reads(self):
    return self.left.reads | self.right.reads

  @property
  def provides(self):
    return self.left.provides | self.right.provides


@dataclasses.dataclass(frozen=True)
class _Either(Mask):
  """The union of two masks."""

  left: Mask = Mask()
  right: Mask = Mask()

  def __call__(self, q, k):
    return self.left(q, k) | self.right(q, k)


class _Sum(Module):
  spec: Sum
  dims: Dims

  @nn.compact
  def __call__(self, x_BTD: jax.Array, ctx: Ctx, cache: Cache = None) -> tuple[jax.Array, Cache]:
    s = self.spec
    given = x_BTD if s.left_in == 1 else x_BTD * s.left_in
    left_BTD, cache = s.left.make(self.dims).copy(name='left')(given, ctx, cache)
    right_BTD, cache = s.right.make(self.dims).copy(name='right')(x_BTD, ctx, cache)
    left_BTD = left_BTD if s.left_out == 1 else left_BTD * s.left_out
    return left_BTD + (right_BTD if s.right_out == 1 else right_BTD * s.right_out), cache
