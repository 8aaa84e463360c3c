"""Longformer: local attention with a few global tokens."""

import dataclasses

import jax
import jax.numpy as jnp

from tfm.parts.attend.base import Scores
from tfm.parts.context import Ctx, Dims
from tfm.parts.dense import Dense, project_jointly
from tfm.parts.encoder_only import check_uncached
from tfm.parts.heads import norm_and_clip
from tfm.parts.mask.base import Mask
from tfm.parts.mask.segments import Segments
from tfm.parts.mask.window import Window
from tfm.parts.mixer.attention import Attention, _Attention
from tfm.parts.mixer.masked import BeyondTheMask, RelativePositions


@dataclasses.dataclass(frozen=True)
class Longformer(BeyondTheMask, Attention):
  """Local attention with global tokens (arXiv:2004.05150).

  Global tokens attend to all tokens of their document, and all tokens attend to them.

  Global tokens use a second set of query, key and value projections. The input
  `global_attention_mask` marks them; without it there are none. In addition to local attention, it
  costs full attention of every token, of which only the global tokens use the result.
  """

  mask: Mask = Window(257, ahead=True)

  joined = (('q', 'k', 'v'), ('global_q', 'global_k', 'global_v'))

  def make(self, dims):
    return _Longformer(self, dims)

  def flops(self, d_model, pairs):
    N, K, H = self.sizes(d_model)
    return super().flops(d_model, pairs) + 2 * d_model * H * (N + 2 * K)

  @property
  def effective_mask(self):
    return _LocalAndGlobal(self.mask)

  @property
  def reads(self):
    return super().reads | {'global'}


@dataclasses.dataclass(frozen=True)
class _LocalAndGlobal(Mask):
  """The tokens that `mask` allows, and the global tokens of the document."""

  mask: Mask

  def __call__(self, q, k):
    near, marked = self.mask(q, k), k.get('global')
    return Segments()(q, k) & (near if marked is None else near | marked)


class _Longformer(_Attention):
  spec: Longformer

  def __call__(self, x_BTD, ctx, cache=None, values=None):
    check_uncached(ctx.slot is not None, 'longformer', 'global tokens attend to later ones')
    return super().__call__(x_BTD, ctx, cache, values)

  def combine_heads(
    self,
    y_BTNH: jax.Array,
    x_BTD: jax.Array,
    project_q: Dense,
    scores: Scores,
    relative: RelativePositions,
    dims: Dims,
    ctx: Ctx,
  ) -> jax.Array:
    s, D, info = self.spec, dims.d_model, ctx.info
    N, K, H = s.sizes(D)
    project_q = Dense('DNH', (D, N, H), dims, bias='q' in s.bias, name='global_q')
    project_k = Dense('DKH', (D, K, H), dims, bias='k' in s.bias, name='global_k')
    project_v = Dense('DKH', (D, K, H), dims, bias='v' in s.bias, name='global_v')
    q_BTNH, k_BTKH, v_BTKH = project_jointly(x_BTD, project_q, project_k, project_v)
    q_BTNH = relative.queries(norm_and_clip(s, dims, q_BTNH, 'global_q'), info)
    k_BTKH = relative.rotate(norm_and_clip(s, dims, k_BTKH, 'global_k', 'K'), info)
    if (marked_BT := info.get('global')) is None:
      return y_BTNH
    whole = dataclasses.replace(scores, mask=Mask() & Segments())
    run = self.dims.run
    all_BTNH = run.attend(
      q_BTNH, k_BTKH, norm_and_clip(s, dims, v_BTKH), info, info, whole, run.precision.reduce
    )
    return jnp.where(marked_BT[..., None, None], all_BTNH, y_BTNH)
