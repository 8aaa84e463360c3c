"""Multi-head attention with any number of key heads (MHA, GQA, MQA), any mask and any relative
position.
"""

import dataclasses
from typing import Any, ClassVar

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.core.axes import sharded
from tfm.core.module import Module
from tfm.parts.attend.base import Scores
from tfm.parts.attend.dense import probabilities
from tfm.parts.attend.dropout import Dropout
from tfm.parts.capture import ATTENTIONS, capture
from tfm.parts.context import Ctx, Dims
from tfm.parts.dense import Dense, together
from tfm.parts.heads import Heads, tamed
from tfm.parts.length_scale import LengthScale
from tfm.parts.mask.base import Mask
from tfm.parts.mask.causal import Causal
from tfm.parts.mask.segments import Segments
from tfm.parts.mixer.base import Cache
from tfm.parts.mixer.masked import MaskedMixer, told
from tfm.parts.relative.base import Relative
from tfm.parts.state import Slot
from tfm.parts.tokeninfo import TokenInfo


@dataclasses.dataclass(frozen=True)
class Attention(Heads, MaskedMixer):
  """softmax(q k scale + bias, where the mask allows) v Wo; the other fields are those of `Heads`.

  Attributes: relative: the relative position of queries and keys. mask: the attention mask.
    rotate_first: rotate queries and keys before they are normalised and clipped, not after
    (HunYuan). length_scale: a factor of the queries that grows with their position (Ministral 3).
    None: none. gated: multiply the output of every head by sigmoid(x Wg), number by number, before
    Wo (arXiv:2505.06708); Wg has a
      bias where Wq has one.
  """

  relative: Relative = Relative()
  mask: Mask = Causal()
  rotate_first: bool = dataclasses.field(default=False, kw_only=True)
  length_scale: LengthScale | None = dataclasses.field(default=None, kw_only=True)
  gated: bool = dataclasses.field(default=False, kw_only=True)

  joined: ClassVar[tuple[tuple[str, ...], ...]] = (('q', 'k', 'v'),)

  def fits(self, d_model):
    yield from super().fits(d_model)
    yield from (f'relative: {m}' for m in self.relative.fits(self.size(d_model)))

  def told_dim(self, d_model):
    return self.size(d_model)

  def make(self, dims):
    return _Attention(self, dims)

  def state(self, d_model):
    _, K, H = self.sizes(d_model)
    return {'k': Slot((K, H)), 'v': Slot((K, H))}

  @property
  def effective_mask(self) -> Mask:
    """Who sees whom of the queries and keys that meet."""
    return self.mask & Segments()

  def flops(self, d_model, pairs):
    N, K, H = self.sizes(d_model)
    return 2 * d_model * H * (2 * N + 2 * K + N * self.gated) + 4 * pairs * N * H


class _Attention(Module):
  spec: Attention
  dims: Dims

  @nn.compact
  def __call__(
    self, x_BTD: jax.Array, ctx: Ctx, cache: Cache = None, values: jax.Array | None = None
  ) -> tuple[jax.Array, Cache]:
    """Return the output and the cache. `values`, of any width, is what values are made of, if it is
    not x.
    """
    s, D = self.spec, self.dims.d_model
    N, K, H = s.sizes(D)
    dims = self.dims.replace(heads=N, head_dim=H, value_dim=H, causal=s.mask.causal)
    x_BTD = self.entering(x_BTD, ctx)
    relative = told(s, dims, ctx)

    project_q = self.project('DNH', (D, N, H), dims, 'q')
    project_k = self.project('DKH', (D, K, H), dims, 'k')
    source, q_info, info = self.sources(x_BTD, ctx)
    valued = source if values is None else values
    project_v = self.project('DKH', (valued.shape[-1], K, H), dims, 'v')
    if valued is x_BTD:
      q_BTNH, k_BSKH, v_BSKH = together(x_BTD, project_q, project_k, project_v)
    else:
      q_BTNH, k_BSKH, v_BSKH = project_q(x_BTD), project_k(source), project_v(valued)
    if s.rotate_first:
      q_BTNH = tamed(s, dims, relative.queries(q_BTNH, q_info), 'q')
      k_BSKH = tamed(s, dims, relative.rotate(k_BSKH, info), 'k', 'K')
    else:
      q_BTNH = relative.queries(tamed(s, dims, q_BTNH, 'q'), q_info)
      k_BSKH = relative.rotate(tamed(s, dims, k_BSKH, 'k', 'K'), info)
    v_BSKH = tamed(s, dims, v_BSKH)
    if s.length_scale is not None:
      q_BTNH = s.length_scale(q_BTNH, q_info.positions)

    new = {'k': k_BSKH, 'v': v_BSKH}
    kept, k_info, cache = self.dims.run.cache.extend(cache, new, info, ctx.slot, s.lookback)
    k_BSKH, v_BSKH, k_info = self.seen(kept['k'], kept['v'], k_info)
    contents = relative.contents + self.contents(project_q, project_k, dims, ctx)
    more = contents, relative.products, relative.added
    scores = make_scores(self, s, H, ctx, s.effective_mask, self.biases(relative, N), *more)
    capture(
      self, ATTENTIONS, lambda: probabilities(q_BTNH, k_BSKH, q_info, k_info, scores, 'float32')
    )
    y_BTNH = self.dims.run.attend(
      q_BTNH, k_BSKH, v_BSKH, q_info, k_info, scores, self.dims.run.precision.reduce
    )
    y_BTNH = self.mixed(y_BTNH, x_BTD, project_q, scores, relative, dims, ctx)
    if s.gated:
      gate = Dense('DNH', (D, *y_BTNH.shape[2:]), dims, bias='q' in s.bias, name='gate')
      y_BTNH = y_BTNH * jax.nn.sigmoid(gate(x_BTD))
    return self.project('NHD', (*y_BTNH.shape[2:], D), dims, 'o', 2)(y_BTNH), cache

  def biases(self, relative: Any, n_heads: int) -> tuple:
    """Return what is added to scores (`Scores.biases`)."""
    return relative.biases(n_heads)

  def project(
    self, letters: str, shape: tuple[int, ...], dims: Dims, name: str, n_in: int = 1
  ) -> Any:
    """Return the projection `name`, one of q, k, v and o."""
    return Dense(letters, shape, dims, n_in, bias=name in self.spec.bias, name=name)

  def entering(self, x_BTD: jax.Array, ctx: Ctx) -> jax.Array:
    """Return the input of the projections."""
    return x_BTD

  def sources(self, x_BTD: jax.Array, ctx: Ctx) -> tuple[jax.Array, TokenInfo, TokenInfo]:
    """(what keys and values are made of, where queries stand, where those stand)."""
    return x_BTD, ctx.info, ctx.info

  def seen(
    self, k_BSKH: jax.Array, v_BSKH: jax.Array, info: TokenInfo
  ) -> tuple[jax.Array, jax.Array, TokenInfo]:
    """The keys and values that queries meet and where they stand, given those of all tokens that
    are kept.
    """
    return k_BSKH, v_BSKH, info

  def mixed(
    self,
    y_BTNH: jax.Array,
    x_BTD: jax.Array,
    project_q: Any,
    scores: Scores,
    relative,
    dims: Dims,
    ctx: Ctx,
  ) -> jax.Array:
    """Return the values of the heads before the output projection, given those of this attention."""
    return y_BTNH

  def contents(self, project_q: Dense, project_k: Dense, dims: Dims, ctx: Ctx) -> tuple:
    """More that is added to q k, as `Hooks.content` is; for kinds of attention that look at more
    than tokens.
    """
    return ()


def make_scores(
  module: nn.Module,
  s,
  H: int,
  ctx: Ctx,
  mask: Mask,
  biases: tuple,
  contents: tuple = (),
  products: tuple = (),
  added: tuple = (),
) -> Scores:
  """How the attention module `module` of spec `s` forms its scores; its sink and its dropout belong
  to the module.
  """
  sink_N = None
  if s.sink:
    sink_N = module.param('sink', sharded(nn.initializers.zeros, 'N'), (s.heads,), jnp.float32)
  drop = None
  if ctx.train and s.dropout:
    drop = Dropout.of(module.make_rng('dropout'), ctx.info.positions.shape[0], s.heads, s.dropout)
  ordered = ctx.ordered and mask.causal and ctx.slot is None
  more = {'products': products, 'added': added}
  return Scores(s.scale or H**-0.5, mask, biases, contents, s.cap, sink_N, drop, ordered, **more)
