"""Feed-forwards: what happens to each token alone."""

from collections.abc import Iterator, Mapping
import dataclasses
from fractions import Fraction
from typing import Any, ClassVar

from tfm.core.registry import Part


@dataclasses.dataclass(frozen=True)
class FFN(Part):
  """`make(dims)` returns a fresh module `(x_BTD, ctx) -> (y_BTD, aux)`, `aux` a scalar to add to
  the loss.
  """

  #: Whether it can stand for E experts at once: rows in turn as `ctx.sizes_E` says, parameters with
  #: a leading axis E.
  stackable = False

  #: As `Mixer.joined`.
  joined: ClassVar[tuple[tuple[str, ...], ...]] = ()

  @property
  def causal(self) -> bool:
    """True if no token learns of a later one."""
    return True

  @property
  def apart(self) -> bool:
    """True if what a token gets depends on that token alone, whatever else is in the batch."""
    return True

  @property
  def reads(self) -> frozenset[str]:
    """The extras of `TokenInfo` that it uses."""
    return frozenset()

  @property
  def active(self) -> Fraction:
    """The share of its experts (parameters whose first letter is E) that a token sees."""
    return Fraction(1)

  def check_inputs(self, inputs: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each reason why tokens with these inputs cannot be fed."""
    yield from ()

  def make(self, dims: Any) -> Any:
    """The module."""
    raise AssertionError(f'{type(self).__name__} must make a module')

  def fits(self, d_model: int) -> Iterator[str]:
    """Yield a sentence for each reason why it cannot be part of a model of this width."""
    yield from ()

  def flops(self, d_model: int) -> int:
    """Multiplications and additions a token takes."""
    raise AssertionError(f'{type(self).__name__} must count its FLOPs')

  def updated(self, params: Any, load: Any) -> Any:
    """The parameters after a step; `load` is what the module has sown into the collection of that
    name.
    """
    del load
    return params
