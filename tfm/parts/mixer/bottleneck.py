"""Bottleneck layer: narrow attention and stacked feed-forwards (MobileBERT)."""

from collections.abc import Iterator
import dataclasses
from typing import Any

from flax import linen as nn
import jax

from tfm.core.module import Module
from tfm.parts.act.base import Act
from tfm.parts.act.relu import Relu
from tfm.parts.context import Ctx, Dims
from tfm.parts.dense import Dense
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.mask.base import Mask
from tfm.parts.mixer.attention import Attention, _Attention
from tfm.parts.mixer.base import Cache, Mixer
from tfm.parts.norm.affine import Affine
from tfm.parts.norm.base import Norm


@dataclasses.dataclass(frozen=True)
class Bottleneck(Mixer):
  """Attention and feed-forwards between projections to and from `width` (arXiv:2004.02984).

  A layer of MobileBERT is a block with this mixer and no feed-forward. The inner residual sums are
  post-norm, as in BERT.

  Attributes:
    width: width of the inner residual stream.
    attention: the attention, at the inner width. The size of a head is `width` / heads by default.
    d_ff: hidden width of the feed-forwards.
    act: activation of the feed-forwards.
    ffns: number of feed-forwards.
    norm: norm of the input projections and of each inner residual sum.
    shared: whether queries and keys share a second input projection, and values use the unprojected
      input. Else all three use the input projection of the inner residual stream.
  """

  width: int = 128
  attention: Attention = Attention(4, bias='qkvo')
  d_ff: int = 512
  act: Act = Relu()
  ffns: int = 4
  norm: Norm = Affine()
  shared: bool = True

  def make(self, dims):
    return _Bottleneck(self, dims)

  def check(self) -> Iterator[str]:
    for name in ('width', 'd_ff', 'ffns'):
      if (size := getattr(self, name)) < 1:
        yield f'{name}={size} is not a size. Expected at least 1.'
    if self.norm.conditioned:
      yield 'norm: needs a condition, which a bottleneck lacks. Expected affine, layer or rms.'

  def fits(self, d_model):
    yield from (f'attention: {message}' for message in self.attention.fits(self.width))

  def state(self, d_model):
    return self.attention.state(self.width)

  def flops(self, d_model, pairs):
    projections, fed = 2 + self.shared, self.ffns * Mlp(self.d_ff, self.act).flops(self.width)
    _, K, H = self.attention.sizes(self.width)
    values = 2 * (d_model - self.width) * K * H * self.shared
    return (
      projections * 2 * d_model * self.width
      + self.attention.flops(self.width, pairs)
      + values
      + fed
    )

  def pairs(self, length):
    return self.attention.pairs(length)

  def relative_dim(self, d_model):
    return self.attention.relative_dim(self.width)

  @property
  def heads(self) -> int:
    """Number of attention heads."""
    return self.attention.heads

  @property
  def mask(self) -> Mask:
    """The attention mask."""
    return self.attention.mask

  @property
  def max_positions(self):
    return self.attention.max_positions

  @property
  def causal(self):
    return self.attention.causal

  @property
  def lookback(self):
    return self.attention.lookback

  @property
  def reads(self):
    return self.attention.reads

  @property
  def masked(self):
    return self.attention.masked


class _Bottleneck(Module):
  spec: Bottleneck
  dims: Dims

  @nn.compact
  def __call__(self, x_BTD: jax.Array, ctx: Ctx, cache: Cache = None) -> tuple[jax.Array, Cache]:
    s, R, D = self.spec, self.spec.width, self.dims.d_model
    narrow = self.dims.replace(d_model=R)
    normed = lambda name, y_BTR: self._normed(narrow, name, y_BTR)
    reduced = lambda name: normed(name, Dense('DR', (D, R), self.dims, bias=True, name=name)(x_BTD))
    y_BTR = queries_BTR = reduced('reduce')
    values = None
    if s.shared:
      queries_BTR, values = reduced('share'), x_BTD
    attend = _Attention(s.attention, narrow, name='attention')
    attended_BTR, cache = attend(queries_BTR, ctx, cache, values)
    y_BTR = normed('attention', y_BTR + attended_BTR)
    for i in range(s.ffns):
      fed_BTR, _ = Mlp(s.d_ff, s.act).make(narrow).copy(name=f'ffn_{i}')(y_BTR, ctx)
      y_BTR = normed(f'ffn_{i}', y_BTR + fed_BTR)
    return Dense('RD', (R, D), self.dims, bias=True, name='expand')(y_BTR), cache

  def _normed(self, dims: Dims, name: str, y_BTR: jax.Array) -> jax.Array:
    norm: Any = self.spec.norm.make(dims, 'R').copy(name=f'{name}_norm')
    return norm(y_BTR)
