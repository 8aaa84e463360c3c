"""The base of mixers with an attention mask and a relative position."""

import functools
from typing import Any, NamedTuple

from flax import linen as nn
import jax

from tfm.parts.context import Ctx, Dims
from tfm.parts.mask.base import Mask
from tfm.parts.mixer.base import Mixer
from tfm.parts.relative.base import Relative
from tfm.parts.tokeninfo import TokenInfo


class MaskedMixer(Mixer):
  """A mixer with an attention mask and a relative position.

  Attributes:
    relative: the relative position.
    mask: the attention mask.
  """

  relative: Relative
  mask: Mask

  def pairs(self, length):
    return self.mask.pairs(length) / length

  @property
  def max_positions(self):
    return self.relative.max_positions

  @property
  def causal(self):
    return self.mask.causal

  @property
  def reads(self):
    return self.mask.reads | self.relative.reads

  @property
  def masked(self):
    return True

  @property
  def lookback(self):
    return self.mask.lookback


class BeyondTheMask:
  """Properties of attention that reaches further than its mask: to later and to distant tokens.

  Put it before the base class, as in `class Longformer(BeyondTheMask, Attention)`.
  """

  @property
  def causal(self):
    return False

  @property
  def lookback(self):
    return None

  @property
  def masked(self):
    return False


class RelativePositions(NamedTuple):
  """The relative positions of a layer, followed by the relative position of its stack.

  Attributes:
    pieces: A pair for each: the config, and its module or, without parameters, the config again.
  """

  pieces: tuple[tuple[Relative, Any], ...]

  def rotate(self, x_BTNH: jax.Array, info: TokenInfo) -> jax.Array:
    """Return keys rotated by every relative position."""
    for _, piece in self.pieces:
      x_BTNH = piece.rotate(x_BTNH, piece.places(info))
    return x_BTNH

  def queries(self, q_BTNH: jax.Array, info: TokenInfo) -> jax.Array:
    """Return queries rotated by every relative position."""
    for _, piece in self.pieces:
      q_BTNH = piece.queries(q_BTNH, piece.places(info))
    return q_BTNH

  def biases(self, n_heads: int) -> tuple:
    """Return the bias functions, for `Scores.biases`."""
    return tuple(
      functools.partial(piece.bias, n_heads) for spec, piece in self.pieces[::-1] if spec.biased
    )

  @property
  def products(self) -> tuple:
    """The products of position vectors, for `Scores.products`."""
    return tuple(piece.product for spec, piece in self.pieces if spec.placed)

  @property
  def contents(self) -> tuple:
    """The functions of content terms, for `Scores.contents`."""
    return tuple(piece.content for spec, piece in self.pieces if spec.contextual)

  @property
  def value_tables(self) -> tuple:
    """The position vectors of values, for `Scores.value_tables`."""
    return tuple(piece.value_table() for spec, piece in self.pieces if spec.valued)

  @property
  def score_scale(self) -> float:
    """A factor of the default score scale."""
    return functools.reduce(lambda scale, piece: scale * piece[0].score_scale, self.pieces, 1.0)


def relative_positions(spec: MaskedMixer, dims: Dims, ctx: Ctx) -> RelativePositions:
  """Return the relative positions of a mixer's module.

  The parameters of the mixer's relative position have the name `relative`.

  Args:
    spec: the config of the mixer.
    dims: the dims of the mixer.
    ctx: the side inputs, with the shared relative position.

  Returns:
    The relative positions.
  """
  relative = spec.relative.make(dims)
  own = relative.copy(name='relative') if isinstance(relative, nn.Module) else relative
  return RelativePositions(((spec.relative, own), *([] if ctx.shared is None else [ctx.shared])))
