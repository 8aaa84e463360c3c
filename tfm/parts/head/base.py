"""Base class of heads, which compute outputs from the last hidden state."""

from collections.abc import Iterator, Mapping, Sequence, Set
import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import jax
from jax.typing import DTypeLike

from tfm.core.registry import Part
from tfm.parts.tokeninfo import TokenInfo

if TYPE_CHECKING:
  from tfm.parts.context import Dims


class HeadTower(Protocol):
  """The tower of a head, as heads check it. `tfm.model.spec.Tower` has these properties.

  Attributes:
    embed: the input layer.
    d_model: the width of the first segment, None for the model's.
    segments: the layers.
    vocab: the number of token ids, 0 without tokens.
    causal: whether no output depends on a later token.
    reads_towers: names of the towers that this one reads.
  """

  @property
  def embed(self) -> Any: ...

  @property
  def d_model(self) -> int | None: ...

  @property
  def segments(self) -> Sequence[Any]: ...

  @property
  def vocab(self) -> int: ...

  @property
  def causal(self) -> bool: ...

  @property
  def reads_towers(self) -> Set[str]: ...


class HeadContext(NamedTuple):
  """Inputs of a head other than the last hidden state.

  Attributes:
    info: positions, segment ids and extras of the tokens.
    inputs: the inputs of the tower, by name.
    outputs: outputs of earlier towers and heads, by name.
    table: the token table of the tower, or None.
    grid: rows and columns of image patches; None if the tokens are no image.
    alone: whether no other head of the tower returns logits over its vocabulary.
    train: whether dropout is on.
    factored: whether a language-model head may return `LogitFactors` in place of logits.
  """

  info: TokenInfo
  inputs: Mapping[str, jax.Array]
  outputs: Mapping[str, Any]
  table: Any = None
  grid: tuple[int, int] | None = None
  alone: bool = True
  train: bool = False
  factored: bool = False


@dataclasses.dataclass(frozen=True)
class Head(Part):
  """Base class: outputs of the model, computed from the last hidden state.

  `make(dims)` returns a module `(x_BTD, context: HeadContext) -> {name: output}`.

  Attributes:
    name: name of the output. Default: the usual name of the kind of head.
    stream: use only the tokens of this stream of `embed=interleave`. None: use all tokens.
  """

  name: str = dataclasses.field(default='', kw_only=True)
  stream: str | None = dataclasses.field(default=None, kw_only=True)

  #: Whether the output is a distribution over the next token for each token of the sequence.
  decodes: ClassVar[bool] = False

  def make(self, dims: 'Dims') -> Any:
    """Return the module."""
    raise AssertionError(f'{type(self).__name__} must make a module')

  @property
  def tied(self) -> bool:
    """Whether the head uses the token table."""
    return False

  def returns(self, alone: bool) -> tuple[str, ...]:
    """Return the names of the outputs; `alone` as in `HeadContext`."""
    raise AssertionError(f'{type(self).__name__} must name its outputs')

  @property
  def reads(self) -> tuple[str, ...]:
    """Names of outputs of other towers or earlier heads that the head uses."""
    return ()

  def examples(self, dtype: DTypeLike) -> dict[str, jax.Array]:
    """Return arrays for the names in `reads`, of any size, to initialize the parameters."""
    del dtype
    return {}

  def vector(self, d_model: int) -> int | None:
    """Return the width of the output if it is one vector per sequence, else None."""
    del d_model
    return None

  def flops(self, dims: 'Dims', length: int) -> float:
    """Return the forward FLOPs for one sequence of `length` tokens."""
    raise AssertionError(f'{type(self).__name__} must count its FLOPs')

  def fits(self, tower: HeadTower) -> Iterator[str]:
    """Yield a message for each reason why the head cannot be used with this tower."""
    yield from ()
