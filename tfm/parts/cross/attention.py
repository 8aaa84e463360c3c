"""Multi-head cross-attention."""

import dataclasses
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.core.module import Module
from tfm.parts.attend.dense import probabilities
from tfm.parts.capture import CROSS, capture
from tfm.parts.context import Ctx, Dims
from tfm.parts.cross.base import Cross
from tfm.parts.dense import Dense
from tfm.parts.heads import Heads, norm_and_clip
from tfm.parts.mask.segments import Segments
from tfm.parts.mixer.attention import make_scores
from tfm.parts.tokeninfo import TokenInfo


@dataclasses.dataclass(frozen=True)
class CrossAttention(Heads, Cross):
  """Multi-head attention to the output of another tower (arXiv:1706.03762).

  Queries are computed from this tower, keys and values from the tower named `tower`. The other
  fields are documented in `Heads`.
  """

  def make(self, dims):
    return _CrossAttention(self, dims)

  def init_cache(self, d_model, B, S, dtype):
    shape = (B, self.kv_heads or self.heads, S, self.size(d_model))
    empty = jnp.zeros((B, S), jnp.int32)
    return {
      'k': jnp.zeros(shape, dtype),
      'v': jnp.zeros(shape, dtype),
      'info': TokenInfo(empty, empty),
    }

  def flops(self, d_model, pairs):
    return 4 * (d_model + pairs) * self.heads * self.size(d_model)

  def memory_flops(self, d_model, d_memory):
    return 4 * d_memory * (self.kv_heads or self.heads) * self.size(d_model)


class _CrossAttention(Module):
  spec: CrossAttention
  dims: Dims

  @nn.compact
  def __call__(self, x_BTD: jax.Array, ctx: Ctx, cache: Any = None) -> tuple[jax.Array, Any]:
    s, D = self.spec, self.dims.d_model
    N, K, H = s.sizes(D)
    dims = self.dims.replace(heads=N, head_dim=H, causal=False)
    q_BTNH = Dense('DNH', (D, N, H), dims, bias='q' in s.bias, name='q')(x_BTD)
    q_BTNH = norm_and_clip(s, dims, q_BTNH, 'q')

    source = ctx.towers.get(s.tower)
    if source is not None:
      m_BSD, m_info = source
      d_memory = m_BSD.shape[-1]
      k_BSKH = Dense('DKH', (d_memory, K, H), dims, bias='k' in s.bias, name='k')(m_BSD)
      v_BSKH = Dense('DKH', (d_memory, K, H), dims, bias='v' in s.bias, name='v')(m_BSD)
      k_BSKH, v_BSKH = norm_and_clip(s, dims, k_BSKH, 'k', 'K'), norm_and_clip(s, dims, v_BSKH)
      if cache is not None:
        # Keys and values are computed once; later calls use the cached ones.
        k_BKSH, v_BKSH = jnp.swapaxes(k_BSKH, 1, 2), jnp.swapaxes(v_BSKH, 1, 2)
        new = {'k': k_BKSH, 'v': v_BKSH, 'info': TokenInfo(m_info.positions, m_info.segment_ids)}
        cache = jax.tree.map(lambda old, part: part.astype(old.dtype), cache, new)
    assert source is not None or cache is not None, (
      f'cross-attention needs the output of {s.tower}, or cached keys and values'
    )
    if source is None:
      k_BSKH = jnp.swapaxes(cache['k'].astype(x_BTD.dtype), 1, 2)
      v_BSKH = jnp.swapaxes(cache['v'].astype(x_BTD.dtype), 1, 2)
      m_info = cache['info']
    scores = make_scores(self, s, H, ctx, Segments(), ())
    capture(self, CROSS, lambda: probabilities(q_BTNH, k_BSKH, ctx.info, m_info, scores, 'float32'))
    y_BTNH = self.dims.run.attend(
      q_BTNH, k_BSKH, v_BSKH, ctx.info, m_info, scores, self.dims.run.precision.reduce
    )
    return Dense('NHD', (N, H, D), dims, n_in=2, bias='o' in s.bias, name='o')(y_BTNH), cache
