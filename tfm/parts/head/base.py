"""What is read from the last hidden state of a tower."""

from collections.abc import Iterator, Mapping
import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax

from tfm.core.registry import Part
from tfm.parts.tokeninfo import TokenInfo


class HeadContext(NamedTuple):
  """What a head can use beside the last hidden state.

  Attributes:
    info: positions, segment ids and extras of the tokens.
    inputs: the inputs of the tower, by name.
    outputs: outputs by name of the towers and heads that were run before.
    table: the token table of the tower (None if it has none).
    grid: rows and columns of image patches (None: the tokens are no image).
    alone: whether no other head of the tower returns logits over its vocabulary.
    train: whether dropout is on.
  """

  info: TokenInfo
  inputs: Mapping[str, jax.Array]
  outputs: Mapping[str, Any]
  table: Any = None
  grid: tuple[int, int] | None = None
  alone: bool = True
  train: bool = False


@dataclasses.dataclass(frozen=True)
class Head(Part):
  """`make(dims)` returns a module `(x_BTD, context: HeadContext) -> {name: output}`.

  Attributes: name: the name of the output, if it is not the usual one of its kind. stream: the head
    is given the tokens of this stream only, of `embed=interleave`. None: all tokens.
  """

  name: str = dataclasses.field(default='', kw_only=True)
  stream: str | None = dataclasses.field(default=None, kw_only=True)

  #: Whether the output is a distribution over the next token, one for each token of the sequence.
  decodes: ClassVar[bool] = False

  def make(self, dims: Any) -> Any:
    """Return the module."""
    raise AssertionError(f'{type(self).__name__} must make a module')

  @property
  def tied(self) -> bool:
    """Whether it uses the token table."""
    return False

  def returns(self, alone: bool) -> tuple[str, ...]:
    """Return the names of its outputs; `alone` as in `HeadContext`."""
    raise AssertionError(f'{type(self).__name__} must name its outputs')

  @property
  def reads(self) -> tuple[str, ...]:
    """Names of outputs of other towers or earlier heads that it uses."""
    return ()

  def examples(self, dtype: Any) -> dict[str, jax.Array]:
    """Return outputs by the names in `reads`, of any size, from which its parameters can be
    started.
    """
    del dtype
    return {}

  def vector(self, d_model: int) -> int | None:
    """Return the width of its output if that is one vector per sequence, else None."""
    del d_model
    return None

  def flops(self, dims: Any, length: int) -> float:
    """Return the forward FLOPs for one sequence of `length` tokens."""
    raise AssertionError(f'{type(self).__name__} must count its FLOPs')

  def fits(self, tower: Any) -> Iterator[str]:
    """Yield a sentence for each reason why it cannot stand on this tower."""
    yield from ()
