"""Multi-head attention (MHA, GQA, MQA) with any mask and relative position."""

import dataclasses
from typing import Any, ClassVar, Protocol

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
from tfm.parts.dense import Dense, project_jointly
from tfm.parts.heads import Heads, norm_and_clip
from tfm.parts.length_scale import LengthScale
from tfm.parts.mask.base import Mask
from tfm.parts.mask.causal import Causal
from tfm.parts.mask.segments import Segments
from tfm.parts.mixer.base import Cache
from tfm.parts.mixer.masked import MaskedMixer, RelativePositions, relative_positions
from tfm.parts.norm.base import Norm
from tfm.parts.relative.base import Relative
from tfm.parts.state import Slot
from tfm.parts.tokeninfo import TokenInfo


@dataclasses.dataclass(frozen=True)
class Attention(Heads, MaskedMixer):
  """Multi-head attention with any mask and relative position (arXiv:1706.03762).

  The output is softmax(q k scale + bias, masked) v Wo. `Heads` documents the remaining fields.

  Attributes:
    relative: the relative position of queries and keys.
    mask: the attention mask.
    rotate_first: rotate queries and keys before they are normalised and clipped, not after
      (HunYuan).
    length_scale: a factor of the queries that grows with their position (Ministral 3); None: no
      factor.
    gated: multiply the output of every head elementwise by sigmoid(x Wg) before Wo
      (arXiv:2505.06708). Wg has a bias where Wq has one.
    out_norm: the norm before Wo, over all heads as one vector (BitNet); None: no norm.
    v_norm: the norm of values, per head (Gemma 3n); None: no norm.
    lends: the name under which later layers use the keys and values (`mixer=borrowed`); '': none.
  """

  relative: Relative = Relative()
  mask: Mask = Causal()
  rotate_first: bool = dataclasses.field(default=False, kw_only=True)
  length_scale: LengthScale | None = dataclasses.field(default=None, kw_only=True)
  gated: bool = dataclasses.field(default=False, kw_only=True)
  out_norm: Norm | None = dataclasses.field(default=None, kw_only=True)
  v_norm: Norm | None = dataclasses.field(default=None, kw_only=True)
  lends: str = dataclasses.field(default='', kw_only=True)

  joined: ClassVar[tuple[tuple[str, ...], ...]] = (('q', 'k', 'v'),)

  def fits(self, d_model):
    yield from super().fits(d_model)
    yield from (f'relative: {m}' for m in self.relative.fits(self.size(d_model)))

  def relative_dim(self, d_model):
    return self.size(d_model)

  def make(self, dims):
    return _Attention(self, dims)

  def state(self, d_model):
    _, K, H = self.sizes(d_model)
    return {'k': Slot((K, H)), 'v': Slot((K, H))}

  def key_shape(self, d_model):
    return self.sizes(d_model)[1:]

  @property
  def effective_mask(self) -> Mask:
    """The mask that is applied to scores, including padding and packed documents."""
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
    """Return the output and the cache.

    Args:
      x_BTD: input of the layer.
      ctx: side inputs.
      cache: cache of the layer.
      values: input of the projection of values, of any width; None: `x_BTD`.

    Returns:
      The output of the layer, `[B, T, D]`, and its new cache.
    """
    s, D = self.spec, self.dims.d_model
    N, K, H = s.sizes(D)
    dims = self.dims.replace(heads=N, head_dim=H, value_dim=H, causal=s.mask.causal)
    x_BTD = self.entering(x_BTD, ctx)
    relative = relative_positions(s, dims, ctx)

    project_q = self.project('DNH', (D, N, H), dims, 'q')
    project_k = self.project('DKH', (D, K, H), dims, 'k')
    source, q_info, info = self.sources(x_BTD, ctx)
    valued = source if values is None else values
    project_v = self.project('DKH', (valued.shape[-1], K, H), dims, 'v')
    if valued is x_BTD:
      q_BTNH, k_BSKH, v_BSKH = project_jointly(x_BTD, project_q, project_k, project_v)
    else:
      q_BTNH, k_BSKH, v_BSKH = project_q(x_BTD), project_k(source), project_v(valued)
    if s.rotate_first:
      q_BTNH = norm_and_clip(s, dims, relative.queries(q_BTNH, q_info), 'q')
      k_BSKH = norm_and_clip(s, dims, relative.rotate(k_BSKH, info), 'k', 'K')
    else:
      q_BTNH = relative.queries(norm_and_clip(s, dims, q_BTNH, 'q'), q_info)
      k_BSKH = relative.rotate(norm_and_clip(s, dims, k_BSKH, 'k', 'K'), info)
    v_BSKH = norm_and_clip(s, dims, v_BSKH)
    v_BSKH = v_BSKH if s.v_norm is None else s.v_norm.make(dims, 'H').copy(name='v_norm')(v_BSKH)
    if s.length_scale is not None:
      q_BTNH = s.length_scale(q_BTNH, q_info.positions)

    new = {'k': k_BSKH, 'v': v_BSKH}
    cached, k_info, cache = self.dims.run.cache.extend(cache, new, info, ctx.slot, s.lookback)
    k_BSKH, v_BSKH, k_info = self.expand_keys(cached['k'], cached['v'], k_info)
    if s.lends:
      ctx.lent[s.lends] = k_BSKH, v_BSKH, k_info
    contents = relative.contents + self.contents(project_q, project_k, dims, ctx)
    more = contents, relative.products, relative.value_tables
    scores = make_scores(self, s, H, ctx, s.effective_mask, self.biases(relative, N), *more)
    capture(
      self, ATTENTIONS, lambda: probabilities(q_BTNH, k_BSKH, q_info, k_info, scores, 'float32')
    )
    y_BTNH = self.dims.run.attend(
      q_BTNH, k_BSKH, v_BSKH, q_info, k_info, scores, self.dims.run.precision.reduce
    )
    y_BTNH = self.combine_heads(y_BTNH, x_BTD, project_q, scores, relative, dims, ctx)
    return self.projected(y_BTNH, x_BTD, dims), cache

  def projected(self, y_BTNH: jax.Array, x_BTD: jax.Array, dims: Dims) -> jax.Array:
    """Apply the gate, the output norm and the output projection.

    Args:
      y_BTNH: weighted values of the heads.
      x_BTD: input of the layer, for the gate.
      dims: sizes and settings of the heads.

    Returns:
      The output of the layer, `[B, T, D]`.
    """
    s, (*_, N, H), D = self.spec, y_BTNH.shape, self.dims.d_model
    if s.gated:
      gate = Dense('DNH', (D, N, H), dims, bias='q' in s.bias, name='gate')
      y_BTNH = y_BTNH * jax.nn.sigmoid(gate(x_BTD))
    if s.out_norm is not None:
      norm = s.out_norm.make(dims, 'N').copy(name='out_norm')
      y_BTNH = norm(y_BTNH.reshape(*y_BTNH.shape[:2], -1)).reshape(y_BTNH.shape)
    return self.project('NHD', (N, H, D), dims, 'o', 2)(y_BTNH)

  def biases(self, relative: RelativePositions, n_heads: int) -> tuple:
    """Return additive terms of the scores (`Scores.biases`)."""
    return relative.biases(n_heads)

  def project(
    self, letters: str, shape: tuple[int, ...], dims: Dims, name: str, n_in: int = 1
  ) -> Any:
    """Return the projection q, k, v or o.

    Args:
      letters: axes of its weight.
      shape: sizes of these axes.
      dims: sizes and settings of the heads.
      name: name of the projection.
      n_in: number of input axes.

    Returns:
      The module.
    """
    return Dense(letters, shape, dims, n_in, bias=name in self.spec.bias, name=name)

  def entering(self, x_BTD: jax.Array, ctx: Ctx) -> jax.Array:
    """Return the input of the projections. Subclasses may override it."""
    return x_BTD

  def sources(self, x_BTD: jax.Array, ctx: Ctx) -> tuple[jax.Array, TokenInfo, TokenInfo]:
    """Return the input of keys and values, and the token info of queries and keys."""
    return x_BTD, ctx.info, ctx.info

  def expand_keys(
    self, k_BSKH: jax.Array, v_BSKH: jax.Array, info: TokenInfo
  ) -> tuple[jax.Array, jax.Array, TokenInfo]:
    """Return the keys and values to attend to, and their token info, given all cached ones."""
    return k_BSKH, v_BSKH, info

  def combine_heads(
    self,
    y_BTNH: jax.Array,
    x_BTD: jax.Array,
    project_q: Any,
    scores: Scores,
    relative: RelativePositions,
    dims: Dims,
    ctx: Ctx,
  ) -> jax.Array:
    """Return the input of the output projection. Subclasses may override it.

    Args:
      y_BTNH: weighted values of the heads.
      x_BTD: input of the layer.
      project_q: projection of queries.
      scores: configuration of the attention scores.
      relative: relative positions of the layer.
      dims: sizes and settings of the heads.
      ctx: side inputs.

    Returns:
      The outputs of all heads; subclasses may add heads.
    """
    return y_BTNH

  def contents(self, project_q: Dense, project_k: Dense, dims: Dims, ctx: Ctx) -> tuple:
    """Return more content terms (see `Hooks.content`). Subclasses may override it."""
    return ()


class ScoreOptions(Protocol):
  """The config fields that `make_scores` uses (see `Heads`)."""

  @property
  def heads(self) -> int: ...

  @property
  def scale(self) -> float | None: ...

  @property
  def cap(self) -> float | None: ...

  @property
  def sink(self) -> bool: ...

  @property
  def dropout(self) -> float: ...


def make_scores(
  module: nn.Module,
  s: ScoreOptions,
  H: int,
  ctx: Ctx,
  mask: Mask,
  biases: tuple,
  contents: tuple = (),
  products: tuple = (),
  value_tables: tuple = (),
) -> Scores:
  """Return the score configuration of an attention module.

  The sink parameter and the dropout seeds belong to the module.

  Args:
    module: the attention module.
    s: its config.
    H: the size of a head, for the default scale.
    ctx: the side inputs of the layer.
    mask: the effective mask.
    biases: as in `Scores`.
    contents: as in `Scores`.
    products: as in `Scores`.
    value_tables: as in `Scores`.

  Returns:
    The scores.
  """
  sink_N = None
  if s.sink:
    sink_N = module.param('sink', sharded(nn.initializers.zeros, 'N'), (s.heads,), jnp.float32)
  drop = None
  if ctx.train and s.dropout:
    drop = Dropout.of(module.make_rng('dropout'), ctx.info.positions.shape[0], s.heads, s.dropout)
  ordered = ctx.ordered and mask.causal and ctx.slot is None
  return Scores(
    scale=s.scale or H**-0.5,
    mask=mask,
    biases=biases,
    contents=contents,
    cap=s.cap,
    sink_N=sink_N,
    drop=drop,
    ordered=ordered,
    value_tables=value_tables,
    products=products,
  )
