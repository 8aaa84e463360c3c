"""Attention to the keys and values of an earlier layer."""

from collections.abc import Iterator
import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.parts.attend.dense import probabilities
from tfm.parts.capture import ATTENTIONS, capture
from tfm.parts.context import Ctx
from tfm.parts.dense import Dense
from tfm.parts.heads import norm_and_clip
from tfm.parts.mixer.attention import Attention, _Attention, make_scores
from tfm.parts.mixer.base import Cache
from tfm.parts.mixer.masked import relative_positions


@dataclasses.dataclass(frozen=True)
class Borrowed(Attention):
  """Attention with the keys and values of an earlier layer (arXiv:2405.12981, Gemma 3n).

  The earlier layer rotates and normalises the keys, and must have the same `kv_heads` and
  `head_dim`. This layer has no cache.

  Attributes:
    lender: the field `lends` of the earlier layer, see `Attention`.
  """

  lender: str = dataclasses.field(default='kv', kw_only=True)

  joined = ()

  def check(self) -> Iterator[str]:
    yield from super().check()
    if self.lends or self.v_norm is not None or set(self.bias) & set('kv'):
      yield (
        'lends, v_norm and biases of k and v need keys and values, and this layer has none. '
        'Expected none of these fields.'
      )

  def make(self, dims):
    return _Borrowed(self, dims)

  def state(self, d_model):
    return {}

  def flops(self, d_model, pairs):
    _, K, H = self.sizes(d_model)
    return super().flops(d_model, pairs) - 4 * d_model * H * K


class _Borrowed(_Attention):
  spec: Borrowed

  @nn.compact
  def __call__(
    self, x_BTD: jax.Array, ctx: Ctx, cache: Cache = None, values: jax.Array | None = None
  ) -> tuple[jax.Array, Cache]:
    assert values is None, 'an earlier layer provides the values'
    s, D = self.spec, self.dims.d_model
    N, K, H = s.sizes(D)
    dims = self.dims.replace(heads=N, head_dim=H, value_dim=H, causal=s.mask.causal)
    relative = relative_positions(s, dims, ctx)
    q_BTNH = Dense('DNH', (D, N, H), dims, bias='q' in s.bias, name='q')(x_BTD)
    if s.rotate_first:
      q_BTNH = norm_and_clip(s, dims, relative.queries(q_BTNH, ctx.info), 'q')
    else:
      q_BTNH = relative.queries(norm_and_clip(s, dims, q_BTNH, 'q'), ctx.info)
    if s.length_scale is not None:
      q_BTNH = s.length_scale(q_BTNH, ctx.info.positions)
    zeros = jnp.zeros((*x_BTD.shape[:2], K, H), x_BTD.dtype)
    k_BSKH, v_BSKH, k_info = (
      (zeros, zeros, ctx.info) if self.is_initializing() else ctx.lent[s.lender]
    )
    more = relative.contents, relative.products, relative.value_tables
    scores = make_scores(self, s, H, ctx, s.effective_mask, relative.biases(N), *more)
    capture(
      self, ATTENTIONS, lambda: probabilities(q_BTNH, k_BSKH, ctx.info, k_info, scores, 'float32')
    )
    reduce = self.dims.run.precision.reduce
    y_BTNH = self.dims.run.attend(q_BTNH, k_BSKH, v_BSKH, ctx.info, k_info, scores, reduce)
    return self.projected(y_BTNH, x_BTD, dims), cache
