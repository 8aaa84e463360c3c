"""Mixed attention: attention heads and dynamic convolution heads (ConvBERT)."""

from collections.abc import Iterator
import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.core.axes import sharded
from tfm.parts.around import around
from tfm.parts.attend.base import Scores
from tfm.parts.context import Ctx, Dims
from tfm.parts.dense import Dense
from tfm.parts.encoder_only import check_uncached
from tfm.parts.mask.base import Mask
from tfm.parts.mixer.attention import Attention, _Attention
from tfm.parts.mixer.masked import BeyondTheMask


@dataclasses.dataclass(frozen=True)
class SpanConv(BeyondTheMask, Attention):
  """Attention and span-based dynamic convolution, `heads` heads each (arXiv:2008.02496).

  A convolution head averages the `span` projected tokens around each token. Their weights are the
  softmax of a projection of q * s, where q is the query and s a depthwise, then pointwise
  convolution over the same tokens. Padding and tokens of other documents are zero.

  In addition to attention, it computes 4 projections per token and holds the values of the
  convolution heads `span` times in memory.

  Note:
    In transformers the convolutions include the hidden states of padding.

  Attributes:
    mask: the attention mask; it does not apply to the convolution.
    span: number of tokens of a convolution, odd.
  """

  mask: Mask = Mask()
  span: int = dataclasses.field(default=9, kw_only=True)

  def make(self, dims):
    return _SpanConv(self, dims)

  def check(self) -> Iterator[str]:
    yield from super().check()
    if self.span < 1 or self.span % 2 == 0:
      yield f'span={self.span} has no middle. Expected an odd number of tokens.'

  def flops(self, d_model, pairs):
    N, _, H = self.sizes(d_model)
    conv = 2 * d_model * (2 * N * H + self.span) + 2 * N * N * H * self.span + 2 * N * H * self.span
    return super().flops(d_model, pairs) + conv + 2 * d_model * N * H * (1 + self.gated)


class _SpanConv(_Attention):
  spec: SpanConv

  def __call__(self, x_BTD, ctx, cache=None, values=None):
    check_uncached(ctx.slot is not None, 'span_conv', 'convolutions include later tokens')
    return super().__call__(x_BTD, ctx, cache, values)

  def combine_heads(
    self,
    y_BTNH: jax.Array,
    x_BTD: jax.Array,
    project_q: Dense,
    scores: Scores,
    relative,
    dims: Dims,
    ctx: Ctx,
  ) -> jax.Array:
    s, (B, T, D), segment_BT = self.spec, x_BTD.shape, ctx.info.segment_ids
    N, _, H = s.sizes(D)
    init, dtype = dims.init.weight('conv', s.span, D, dims), dims.run.precision.dtype('param')
    taps_PD = self.param('taps', sharded(init, 'PD'), (s.span, D), dtype).astype(x_BTD.dtype)
    near_BTD = jnp.einsum('btpd,pd->btd', around(x_BTD, segment_BT, s.span), taps_PD)
    span_BTNH = Dense('DNH', (D, N, H), dims, bias=True, name='span')(near_BTD)
    mixed_BTR = (span_BTNH * project_q(x_BTD)).reshape(B, T, N * H)
    weights_BTNP = nn.softmax(
      Dense('RNP', (N * H, N, s.span), dims, bias=True, name='weights')(mixed_BTR)
    )
    value_BTNH = Dense('DNH', (D, N, H), dims, bias=True, name='values')(x_BTD)
    values_BTPR = around(value_BTNH.reshape(B, T, N * H), segment_BT, s.span)
    values_BTPNH = values_BTPR.reshape(B, T, s.span, N, H)
    return jnp.concatenate([y_BTNH, jnp.einsum('btpnh,btnp->btnh', values_BTPNH, weights_BTNP)], 2)
