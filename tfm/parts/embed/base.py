"""How the inputs of a tower become a sequence of vectors."""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from tfm.core import errors
from tfm.core.registry import Part
from tfm.parts.tokeninfo import TokenInfo, positions

#: The arrays a tower was given, by their names in `Embed.needs` and `Embed.takes`.
Inputs = Mapping[str, jax.Array]
#: The outputs of towers: name -> (vectors `[B, S, D]`, their token info).
Outputs = Mapping[str, tuple[jax.Array, TokenInfo]]
#: Optional inputs `[B, T]` that describe the tokens of a sequence.
SEQUENCE = ('attention_mask', 'segment_ids', 'position_ids')


class Embedded(NamedTuple):
  """A sequence before absolute positions are added.

  Attributes:
    x_BTD: the vectors, `[B, T, D]`.
    info: their positions, segment ids and extras.
    ordered: whether the tokens of a document stand in the order of their positions.
    outputs: if not None, only the last `outputs` tokens are returned by the model.
    cond_BD: a vector per example that norms and gates may be conditioned on.
    grid: rows and columns of image patches, if the sequence has them.
  """

  x_BTD: jax.Array
  info: TokenInfo
  ordered: bool = True
  outputs: int | None = None
  cond_BD: jax.Array | None = None
  grid: tuple[int, int] | None = None


@dataclasses.dataclass(frozen=True)
class Embed(Part):
  """The input layer of a tower.

  `make(dims)` returns a module with the methods

  - `start(inputs, outputs, next_B) -> Embedded`: `inputs` has the arrays by name, `outputs` those of the towers in
    `towers`, `next_B` the next position of each cached row (None: no cache);
  - `finish(x_BTD, train) -> x_BTD`: what follows the absolute positions (norm, dropout, projection);
  - `leave(x_BTD) -> x_BTD`: a projection of the last hidden state (most return it unchanged);
  - `words() -> table_VD`: the token table for a tied head (only `tokens`).
  """

  #: Inputs that must be given, under Hugging Face's names.
  needs: ClassVar[tuple[str, ...]] = ()
  #: Inputs that may be given.
  takes: ClassVar[tuple[str, ...]] = ()
  #: Whether the last of `hidden_states` is the last hidden state, as in Hugging Face's text models.
  #: In those of images it is the output of the last layer before the final norm.
  ends_with_norm: ClassVar[bool] = True
  #: Extras of `TokenInfo` that it can provide.
  provides: ClassVar[frozenset[str]] = frozenset()

  @property
  def causal(self) -> bool:
    """True if no vector depends on a later token."""
    return True

  def make(self, dims: Any) -> Any:
    """Return the module."""
    raise AssertionError(f'{type(self).__name__} must make a module')

  def shapes(self, batch: int, length: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Return shapes of the needed inputs for `batch` examples of about `length` tokens."""
    raise AssertionError(f'{type(self).__name__} must give the shapes of its inputs')

  def example(self, key: jax.Array, batch: int, length: int) -> dict[str, jax.Array]:
    """Return valid inputs of `shapes(batch, length)`, drawn with `key`: normal floats, and integers
    0 or 1.

    The towers that it reads are expected to have `length // 2` tokens.
    """

    def draw(key: jax.Array, like: jax.ShapeDtypeStruct) -> jax.Array:
      if jnp.issubdtype(like.dtype, jnp.floating):
        return jax.random.normal(key, like.shape, like.dtype)
      return jax.random.bernoulli(key, shape=like.shape).astype(like.dtype)

    shapes = self.shapes(batch, length)
    return {
      name: draw(jax.random.fold_in(key, i), like) for i, (name, like) in enumerate(shapes.items())
    }

  def tokens(self, length: int) -> int:
    """Return the length of the sequence that inputs of `shapes(batch, length)` become."""
    return length

  def check_inputs(self, given: Inputs, name_of: Callable[[str], str], limit: int | None) -> None:
    """Raise UserError for inputs of the wrong shape; `limit` is the number of positions of the
    tower (None: any).

    `name_of` returns the name under which an input was passed to `apply`.
    """
    raise AssertionError(f'{type(self).__name__} must check its inputs')

  def info(self, inputs: Inputs, shape: tuple[int, int]) -> TokenInfo:
    """Return the token info of outputs `[B, T]` that were computed before, such as
    `encoder_outputs`.
    """
    del inputs
    return whole(*shape)

  @property
  def prepended(self) -> int:
    """The number of vectors before those of the inputs, which the model does not return."""
    return 0

  @property
  def towers(self) -> tuple[str, ...]:
    """The towers whose outputs it reads."""
    return ()

  @property
  def optional(self) -> bool:
    """Whether a call may leave out the towers that it reads."""
    return False

  @property
  def streams(self) -> tuple[str, ...]:
    """Names of the streams that take turns in the sequence."""
    return ()

  @property
  def conditions(self) -> bool:
    """Whether it returns a vector per example for norms and residual scales that are conditioned."""
    return False

  @property
  def token_embed(self) -> Any:
    """The input layer with the token table for a tied head: itself, or one inside it. None: there
    is no table.
    """
    return None

  @property
  def width(self) -> int | None:
    """The width of the vectors before `finish`, if it is not that of the tower."""
    return None

  @property
  def d_out(self) -> int | None:
    """The width of the last hidden state, if `leave` changes that of the tower."""
    return None

  @property
  def shares(self) -> bool:
    """Whether it uses the token table of the model's own tower."""
    return False

  def resolved(self, of: 'Embed') -> 'Embed':
    """Return the input layer with the sizes that it shares with that of the model filled in."""
    del of
    return self

  @property
  def vocab(self) -> int:
    """The number of token ids, 0 if it has no token table."""
    return 0

  def flops(self, d_model: int) -> float:
    """Return the forward FLOPs per token of the sequence."""
    return 0.0

  def read_flops(self, d_model: int, width: int) -> float:
    """Return the forward FLOPs per token of a tower that it reads, with outputs of this width."""
    return 0.0

  def fits(self, d_model: int) -> Iterator[str]:
    """Yield a sentence for each reason why it cannot feed a tower of this width."""
    yield from ()


def whole(batch: int, length: int) -> TokenInfo:
  """Return the info of sequences without padding: positions 0, 1, ... in one document."""
  positions_BT = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), (batch, length))
  return TokenInfo(positions_BT, jnp.ones((batch, length), jnp.int32))


def sequence_info(
  inputs: Inputs, shape: tuple[int, int], next_B: jax.Array | None = None
) -> TokenInfo:
  """Return the info of `[B, T]` tokens from `segment_ids`, or `attention_mask`, and `position_ids`,
  all optional.

  Positions count the tokens of a document from 0; with a cache they continue at `next_B`.
  """
  if 'segment_ids' in inputs:
    info = TokenInfo(positions(inputs['segment_ids']), inputs['segment_ids'].astype(jnp.int32))
  elif 'attention_mask' in inputs:
    segment_BT = (inputs['attention_mask'] != 0).astype(jnp.int32)
    info = TokenInfo(jnp.maximum(jnp.cumsum(segment_BT, axis=1) - 1, 0), segment_BT)
  else:
    info = whole(*shape)
  if next_B is not None:
    info = info.at(info.positions + next_B[:, None])
  return info.at(inputs['position_ids'].astype(jnp.int32)) if 'position_ids' in inputs else info


def check_sequence(
  given: Inputs,
  name_of: Callable[[str], str],
  first: str,
  shape: tuple[int, int],
  limit: int | None,
) -> None:
  """Raise UserError for masks and ids that are not `[B, T]` like the input `first`, or for too many
  tokens.

  Args:
    given: the inputs; the names in `SEQUENCE` are checked.
    name_of: returns the name under which an input was passed to `apply`.
    first: the input whose tokens they describe.
    shape: its B and T.
    limit: the number of positions of the tower, None for any.
  """
  for name in (n for n in SEQUENCE if n in given):
    if given[name].shape != shape:
      raise errors.UserError(
        f'apply: {name_of(name)} has shape {given[name].shape}. Expected {shape}, as '
        f'{name_of(first)} has {shape[1]} '
        f'tokens for each of {shape[0]} examples.'
      )
  if {'attention_mask', 'segment_ids'} <= set(given):
    raise errors.UserError(
      f'apply: {name_of("attention_mask")} and {name_of("segment_ids")} are both given. '
      'Expected one: segment 0 is padding.'
    )
  if limit is not None and limit < shape[1]:
    raise errors.UserError(
      f'apply: {name_of(first)} makes {shape[1]} tokens, the position table has {limit} rows. '
      f'Expected at most {limit} tokens.'
    )


def check_shape(name: str, value: jax.Array, letters: str, sizes: Mapping[str, int] = {}) -> None:
  """Raise UserError unless `value` has an axis for each of `letters`, of the sizes given.

  Example:
    >>> check_shape('pixel_values', jnp.zeros((2, 1, 8, 8)), 'BCHW', {'C': 3})
    Traceback (most recent call last):
    ...
    tfm.core.errors.UserError: apply: pixel_values has shape (2, 1, 8, 8). Expected [B, C=3, H, W].
  """
  bad = value.ndim != len(letters)
  if bad or any(
    sizes.get(letter, size) != size for letter, size in zip(letters, value.shape, strict=True)
  ):
    axes = ', '.join(
      f'{letter}={sizes[letter]}' if letter in sizes else letter for letter in letters
    )
    raise errors.UserError(f'apply: {name} has shape {value.shape}. Expected [{axes}].')
