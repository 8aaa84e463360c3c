"""What mixers have in common whose tokens look at each other: a mask, and a relative position."""

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
  """A mixer with fields `relative`, which tells how far apart tokens stand, and `mask`, which says
  who sees whom.
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


class Told(NamedTuple):
  """All that tells a layer how far apart tokens stand: its own relative position, then the one that
  its stack shares.

  Each as it is chosen, and as it has been made.
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
    """What `Scores.biases` wants."""
    return tuple(
      functools.partial(piece.bias, n_heads) for spec, piece in self.pieces[::-1] if spec.biased
    )

  @property
  def products(self) -> tuple:
    """What `Scores.products` wants."""
    return tuple(piece.product for spec, piece in self.pieces if spec.placed)

  @property
  def contents(self) -> tuple:
    """What `Scores.contents` wants."""
    return tuple(piece.content for spec, piece in self.pieces if spec.contextual)

  @property
  def added(self) -> tuple:
    """What `Scores.added` wants."""
    return tuple(piece.added() for spec, piece in self.pieces if spec.valued)

  @property
  def score_scale(self) -> float:
    """What scores are to be multiplied by where their scale is not given."""
    return functools.reduce(lambda scale, piece: scale * piece[0].score_scale, self.pieces, 1.0)


def told(spec: MaskedMixer, dims: Dims, ctx: Ctx) -> Told:
  """What tells a mixer's module of distances; its own parameters, if it has any, stand under the
  name `relative`.
  """
  relative = spec.relative.make(dims)
  own = relative.copy(name='relative') if isinstance(relative, nn.Module) else relative
  return Told(((spec.relative, own), *([] if ctx.shared is None else [ctx.shared])))
