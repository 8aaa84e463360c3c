"""Relative position: what attention is told about q - k. Hooks without effect by default."""

from collections.abc import Iterator
import dataclasses
from typing import Any

import jax

from tfm.core.registry import Part
from tfm.parts.attend.added import Added
from tfm.parts.term import Product, Term
from tfm.parts.tokeninfo import TokenInfo


class Hooks:
  """What attention asks of a relative position, or of its module if it owns parameters; nothing has
  an effect.
  """

  def places(self, info: TokenInfo) -> jax.Array:
    """Return the places of tokens as `rotate` takes them: their positions, if not something else of
    `info`.
    """
    return info.positions

  def rotate(self, x_BTNH: jax.Array, pos_BT: jax.Array) -> jax.Array:
    """Queries or keys, turned by their positions."""
    return x_BTNH

  def queries(self, q_BTNH: jax.Array, pos_BT: jax.Array) -> jax.Array:
    """Queries, turned; for what does not turn keys alike."""
    return self.rotate(q_BTNH, pos_BT)

  def bias(self, n_heads: int, q: TokenInfo, k: TokenInfo) -> jax.Array | None:
    """What is added to the scaled scores, `[B or 1, N, T, S]`, of infos `[B, T]` and `[B, S]`."""
    return None

  def product(self, q: TokenInfo, k: TokenInfo) -> Product | None:
    """What is added to the scaled scores beside `bias`: by what two positions are to each other."""
    return None

  def added(self) -> Added | None:
    """What is added to values by how far away they are read."""
    return None

  def content(
    self, q_BTNH: jax.Array, k_BSKH: jax.Array, q: TokenInfo, k: TokenInfo
  ) -> tuple[Term, ...]:
    """What is added to q k before it is scaled: by distance and what (turned) queries and keys are."""
    return ()


@dataclasses.dataclass(frozen=True)
class Relative(Hooks, Part):
  """Nothing: attention knows of order only what its mask tells (NoPE).

  A piece overrides some of `Hooks`: `rotate`, `bias` (and then `biased`), `product` (and then
  `placed`), `content` (and then `contextual`), `added` (and then `valued`)."""

  def make(self, dims: Any) -> Any:
    """A fresh object with `rotate` and `bias`: a module if it owns parameters, else the piece
    itself.
    """
    return self

  def fits(self, head_dim: int) -> Iterator[str]:
    """Yields a sentence for each reason why it cannot serve heads of this size."""
    yield from ()

  @property
  def biased(self) -> bool:
    """Whether `bias` returns anything."""
    return False

  @property
  def placed(self) -> bool:
    """Whether `product` returns anything."""
    return False

  @property
  def max_positions(self) -> int | None:
    """How many positions it can tell, or None for any number."""
    return None

  @property
  def contextual(self) -> bool:
    """Whether `content` returns anything."""
    return False

  @property
  def valued(self) -> bool:
    """Whether `added` returns anything."""
    return False

  @property
  def reads(self) -> frozenset[str]:
    """The extras of `TokenInfo` that it uses."""
    return frozenset()

  @property
  def score_scale(self) -> float:
    """What scores are to be multiplied by where their scale is not given (see `Yarn`)."""
    return 1.0
