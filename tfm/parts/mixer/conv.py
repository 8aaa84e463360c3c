"""A convolution over neighbouring tokens, for encoders."""

from collections.abc import Iterator
import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.core.axes import sharded, trailing
from tfm.core.module import Module
from tfm.parts.act.base import Act
from tfm.parts.act.tanh import Tanh
from tfm.parts.around import around
from tfm.parts.context import Ctx, Dims
from tfm.parts.encoder_only import check_uncached
from tfm.parts.mask.window import Window
from tfm.parts.mixer.base import Cache, Mixer


@dataclasses.dataclass(frozen=True)
class Conv(Mixer):
  """A convolution over nearby tokens, with an activation (arXiv:1705.03122, arXiv:2006.03654).

  The output is act(sum_p x_{t+p} W_p + b), with p from -(size - 1) / 2 to (size - 1) / 2.
  Neighbours in other documents, padding and the ends of the sequence count as 0. Neighbours are
  adjacent in the sequence, whatever their positions. It costs 2 `size` D^2 / `groups` FLOPs per
  token and makes an array of `size` times the residual stream. It has no cache.

  Attributes:
    size: the number of tokens, odd.
    groups: the number of channel groups that are convolved independently.
    act: the activation.
    dropout: the dropout rate before the activation.
  """

  size: int = 3
  groups: int = 1
  act: Act = Tanh()
  dropout: float = 0.0

  def make(self, dims):
    return _Conv(self, dims)

  def state(self, d_model):
    return {}

  def flops(self, d_model, pairs):
    return 2 * self.size * d_model**2 // self.groups

  def pairs(self, length):
    return self.mask.pairs(length) / length

  @property
  def mask(self) -> Window:
    """The tokens that a token depends on, as an attention mask."""
    return Window(self.size // 2 + 1, ahead=True)

  @property
  def causal(self):
    return self.size == 1

  def fits(self, d_model):
    if self.groups > 0 and d_model % self.groups:
      yield f'groups={self.groups} does not divide d_model={d_model}. Expected a divisor.'

  def check(self) -> Iterator[str]:
    if self.size < 1 or self.size % 2 == 0:
      yield f'size={self.size} has no middle. Expected an odd number of tokens.'
    if self.groups < 1:
      yield f'groups={self.groups} is not a number of groups. Expected at least 1.'
    if not 0 <= self.dropout < 1:
      yield f'dropout={self.dropout} is not a rate. Expected at least 0 and less than 1.'


class _Conv(Module):
  spec: Conv
  dims: Dims

  @nn.compact
  def __call__(self, x_BTD: jax.Array, ctx: Ctx, cache: Cache = None) -> tuple[jax.Array, Cache]:
    check_uncached(cache is not None, 'conv', 'depends on later tokens')
    s, (B, T, D) = self.spec, x_BTD.shape
    parts, dtype = (s.groups, D // s.groups), self.dims.run.precision.dtype('param')
    init = self.dims.init.weight('conv', s.size * parts[1], D, self.dims)
    kernel = self.param('kernel', sharded(init, 'DPD'), (parts[1], s.size, D), dtype).astype(
      x_BTD.dtype
    )
    bias_D = self.param('bias', sharded(nn.initializers.zeros, 'D'), (D,), dtype).astype(
      x_BTD.dtype
    )
    around_BTPD = around(x_BTD, ctx.info.segment_ids, s.size)
    inputs = around_BTPD.reshape(B, T, s.size, *parts)
    weights = kernel.reshape(parts[1], s.size, *parts)
    y_BTD = jnp.einsum('btpgi,ipgo->btgo', inputs, weights).reshape(B, T, D) + trailing(bias_D, 3)
    return s.act(nn.Dropout(s.dropout, deterministic=not ctx.train)(y_BTD)), None
