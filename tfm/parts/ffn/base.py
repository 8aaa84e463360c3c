"""Base class of feed-forward networks."""

from collections.abc import Iterator, Mapping
import dataclasses
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar

from tfm.core.registry import Part

if TYPE_CHECKING:
  from tfm.parts.context import Dims


@dataclasses.dataclass(frozen=True)
class FFN(Part):
  """Base class: a network that is applied to each token separately.

  `make(dims)` returns a module `(x_BTD, ctx) -> (y_BTD, aux)`, where `aux` is a scalar that is
  added to the loss.
  """

  #: Groups of projections with joinable weights, as `Mixer.joined`.
  joined: ClassVar[tuple[tuple[str, ...], ...]] = ()

  @property
  def stackable(self) -> bool:
    """Whether the feed-forward can compute E experts together.

    Its parameters then have a leading axis E, and its inputs are sorted by expert (`Ctx.sizes_E`).
    """
    return False

  @property
  def causal(self) -> bool:
    """Whether the output of a token is independent of later tokens."""
    return True

  @property
  def per_token(self) -> bool:
    """Whether the output of a token is independent of all other tokens in the batch."""
    return True

  @property
  def reads(self) -> frozenset[str]:
    """The extras of `TokenInfo` that it uses."""
    return frozenset()

  @property
  def active(self) -> Fraction:
    """Share of the experts (parameters with a first axis E) that a token uses."""
    return Fraction(1)

  def check_inputs(self, inputs: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each reason why it cannot process tokens with these inputs."""
    yield from ()

  def make(self, dims: 'Dims') -> Any:
    """Return the module."""
    raise AssertionError(f'{type(self).__name__} must make a module')

  def fits(self, d_model: int) -> Iterator[str]:
    """Yield a sentence for each reason why it cannot be part of a model of this width."""
    yield from ()

  def flops(self, d_model: int) -> int:
    """Return the forward FLOPs per token."""
    raise AssertionError(f'{type(self).__name__} must count its FLOPs')

  def slices(self, dims: 'Dims', tokens: int, units: int, train: bool) -> int:
    """Return the number of slices of the hidden layer in the backward pass.

    Args:
      dims: sizes and settings of the model.
      tokens: the number of tokens on a device.
      units: the number of hidden units on a device.
      train: whether dropout is on.

    Returns:
      1, or the argument of `tfm.parts.ffn.sliced.sliced_glu`.
    """
    del dims, tokens, units, train
    return 1

  def updated(self, params: Any, load: Any) -> Any:
    """Return the parameters after an optimizer step.

    `load` is the value that the module has stored in the collection `load`.
    """
    del load
    return params
