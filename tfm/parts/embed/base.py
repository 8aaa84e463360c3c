"""Base class of input layers, which turn the inputs of a tower into vectors."""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from tfm.core import errors
from tfm.core.registry import Part
from tfm.parts.tokeninfo import TokenInfo, positions

if TYPE_CHECKING:
  from tfm.parts.context import Dims

#: The inputs of a tower, by their names in `Embed.needs` and `Embed.takes`.
Inputs = Mapping[str, jax.Array]
#: The outputs of towers, by name: vectors `[B, S, D]` and their token info.
Outputs = Mapping[str, tuple[jax.Array, TokenInfo]]
#: Optional inputs `[B, T]` that describe the tokens of a sequence.
SEQUENCE = ('attention_mask', 'segment_ids', 'position_ids')


class Embedded(NamedTuple):
  """A sequence of vectors before absolute positions are added.

  Attributes:
    x_BTD: the vectors, `[B, T, D]`.
    info: their positions, segment ids and extras.
    ordered: whether the tokens of each document are in the order of their positions.
    outputs: number of tokens at the end that the model returns; None: all.
    cond_BD: a condition per example for norms and residual scales.
    grid: rows and columns of image patches, or None.
    layered_BTLR: vectors of each token for each layer, `[B, T, L, R]`.
  """

  x_BTD: jax.Array
  info: TokenInfo
  ordered: bool = True
  outputs: int | None = None
  cond_BD: jax.Array | None = None
  grid: tuple[int, int] | None = None
  layered_BTLR: jax.Array | None = None


@dataclasses.dataclass(frozen=True)
class Embed(Part):
  """Base class: the input layer of a tower.

  `make(dims)` returns a module with four methods:

  - `start(inputs, outputs, next_B) -> Embedded`. `inputs` holds arrays by name, `outputs` the
    outputs of the towers in `towers`. `next_B` is the next position of each cached sequence, or
    None without a cache.
  - `finish(x_BTD, train) -> x_BTD` is applied after absolute positions: norm, dropout, projection.
  - `project_out(x_BTD) -> x_BTD` is applied to the last hidden state. Most return it unchanged.
  - `tied_table() -> table_VD` returns the token table for a tied head, in layers that have one.
  """

  #: Names of required inputs, as in Hugging Face's models.
  needs: ClassVar[tuple[str, ...]] = ()
  #: Names of optional inputs.
  takes: ClassVar[tuple[str, ...]] = ()
  #: Whether `hidden_states` ends with the last hidden state, as in Hugging Face's text models. In
  #: image models it ends with the output of the last layer, before the final norm.
  ends_with_norm: ClassVar[bool] = True
  #: Names of the extras of `TokenInfo` that the layer can provide.
  provides: ClassVar[frozenset[str]] = frozenset()

  @property
  def layered(self) -> int:
    """The width of the per-layer embeddings; 0: none."""
    return 0

  @property
  def causal(self) -> bool:
    """Whether no vector depends on a later token."""
    return True

  def make(self, dims: 'Dims') -> Any:
    """Return the module."""
    raise AssertionError(f'{type(self).__name__} must make a module')

  def shapes(self, batch: int, length: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Return shapes of the required inputs for `batch` examples of about `length` tokens."""
    raise AssertionError(f'{type(self).__name__} must give the shapes of its inputs')

  def example(self, key: jax.Array, batch: int, length: int) -> dict[str, jax.Array]:
    """Return random valid inputs: normal floats, and integers 0 or 1.

    Towers that provide inputs must have `length // 2` tokens.

    Args:
      key: random key.
      batch: number of examples.
      length: approximate number of tokens, as in `shapes`.

    Returns:
      Arrays by input name.
    """

    def draw(key: jax.Array, like: jax.ShapeDtypeStruct) -> jax.Array:
      if jnp.issubdtype(like.dtype, jnp.floating):
        return jax.random.normal(key, like.shape, like.dtype)
      return jax.random.bernoulli(key, shape=like.shape).astype(like.dtype)

    shapes = self.shapes(batch, length)
    inputs = {}
    for i, (name, like) in enumerate(shapes.items()):
      inputs[name] = draw(jax.random.fold_in(key, i), like)
    return inputs

  def tokens(self, length: int) -> int:
    """Return the number of tokens of inputs with the shapes `shapes(batch, length)`."""
    return length

  def check_inputs(self, given: Inputs, name_of: Callable[[str], str], limit: int | None) -> None:
    """Check the shapes and values of inputs.

    Args:
      given: the inputs, by name.
      name_of: returns the name under which an input was passed to `apply`.
      limit: number of positions of the tower, None for no limit.

    Raises:
      UserError: an input has a wrong shape or value.
    """
    raise AssertionError(f'{type(self).__name__} must check its inputs')

  def info(self, inputs: Inputs, shape: tuple[int, int]) -> TokenInfo:
    """Return the token info of outputs `[B, T]` that are given, such as `encoder_outputs`."""
    del inputs
    return unpadded(*shape)

  @property
  def prepended(self) -> int:
    """The number of prepended vectors, which the model does not return."""
    return 0

  @property
  def towers(self) -> tuple[str, ...]:
    """Names of the other towers that provide inputs."""
    return ()

  @property
  def optional(self) -> bool:
    """Whether the outputs of these towers are optional."""
    return False

  @property
  def streams(self) -> tuple[str, ...]:
    """Names of interleaved streams."""
    return ()

  @property
  def conditions(self) -> bool:
    """Whether a condition per example is returned, for norms and residual scales."""
    return False

  @property
  def token_embed(self) -> Any:
    """The input layer that holds the token table for a tied head, or None."""
    return None

  @property
  def width(self) -> int | None:
    """Width of the vectors before `finish`; None: the width of the tower."""
    return None

  @property
  def d_out(self) -> int | None:
    """Width of the last hidden state after `project_out`; None: the width of the tower."""
    return None

  @property
  def shares(self) -> bool:
    """Whether the token table of the main tower is used."""
    return False

  def resolved(self, of: 'Embed') -> 'Embed':
    """Return this layer with the sizes that it shares with the layer of the main tower."""
    del of
    return self

  @property
  def vocab(self) -> int:
    """Number of token ids, 0 without a token table."""
    return 0

  def flops(self, d_model: int) -> float:
    """Return the forward FLOPs per token of the sequence."""
    return 0.0

  def read_flops(self, d_model: int, width: int) -> float:
    """Return the forward FLOPs per token of another tower, with outputs of this width."""
    return 0.0

  def fits(self, d_model: int) -> Iterator[str]:
    """Yield a message for each reason why the layer cannot be used at this width."""
    yield from ()


def unpadded(batch: int, length: int) -> TokenInfo:
  """Return the info of sequences without padding: positions 0, 1, ... in one document."""
  positions_BT = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), (batch, length))
  return TokenInfo(positions_BT, jnp.ones((batch, length), jnp.int32))


def sequence_info(
  inputs: Inputs, shape: tuple[int, int], next_B: jax.Array | None = None
) -> TokenInfo:
  """Return the token info of sequences from optional inputs.

  `segment_ids` or `attention_mask` mark documents and padding. Positions count from 0 in each
  document, unless `position_ids` are given.

  Args:
    inputs: the inputs by name; those in `SEQUENCE` are used.
    shape: batch size and length.
    next_B: next position of each cached sequence; None without a cache.

  Returns:
    The info of `[B, T]` tokens.
  """
  if 'segment_ids' in inputs:
    info = TokenInfo(positions(inputs['segment_ids']), inputs['segment_ids'].astype(jnp.int32))
  elif 'attention_mask' in inputs:
    segment_BT = (inputs['attention_mask'] != 0).astype(jnp.int32)
    info = TokenInfo(jnp.maximum(jnp.cumsum(segment_BT, axis=1) - 1, 0), segment_BT)
  else:
    info = unpadded(*shape)
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
  """Check masks and ids that describe the tokens of another input.

  Args:
    given: the inputs; the names in `SEQUENCE` are checked.
    name_of: returns the name under which an input was passed to `apply`.
    first: the input with the described tokens.
    shape: its batch size and length.
    limit: number of positions of the tower, None for no limit.

  Raises:
    UserError: a shape differs, two inputs exclude each other, or there are too many tokens.
  """
  for name in (n for n in SEQUENCE if n in given):
    if given[name].shape != shape:
      raise errors.UserError(
        f'apply: {name_of(name)} has shape {given[name].shape}. Expected {shape}, as '
        f'{name_of(first)} has {shape[0]} examples of {shape[1]} tokens.'
      )
  if {'attention_mask', 'segment_ids'} <= set(given):
    raise errors.UserError(
      f'apply: {name_of("attention_mask")} and {name_of("segment_ids")} are both given. '
      'Expected only one; in segment ids, 0 is padding.'
    )
  if limit is not None and limit < shape[1]:
    raise errors.UserError(
      f'apply: {name_of(first)} has {shape[1]} tokens, the position table has {limit} entries. '
      f'Expected at most {limit} tokens.'
    )


def check_shape(name: str, value: jax.Array, letters: str, sizes: Mapping[str, int] = {}) -> None:
  """Check that an array has the given axes and sizes.

  Args:
    name: name of the input.
    value: the array.
    letters: a letter for each axis.
    sizes: required sizes of some axes, by letter.

  Raises:
    UserError: the number of axes or a size is wrong.

  Example:
    >>> check_shape('pixel_values', jnp.zeros((2, 1, 8, 8)), 'BCHW', {'C': 3})
    Traceback (most recent call last):
    ...
    tfm.core.errors.UserError: apply: pixel_values has shape (2, 1, 8, 8). Expected [B, C=3, H, W].
  """
  axes = dict(zip(letters, value.shape, strict=False))
  if value.ndim != len(letters) or any(axes.get(letter, n) != n for letter, n in sizes.items()):
    named = {letter: f'{letter}={size}' for letter, size in sizes.items()}
    expected = ', '.join(named.get(letter, letter) for letter in letters)
    raise errors.UserError(f'apply: {name} has shape {value.shape}. Expected [{expected}].')
