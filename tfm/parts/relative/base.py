"""Relative position encodings: hooks that attention calls, without effect by default."""

from collections.abc import Iterator
import dataclasses
from typing import Any

import jax

from tfm.core.registry import Part
from tfm.parts.attend.value_table import ValueTable
from tfm.parts.term import Product, Term
from tfm.parts.tokeninfo import TokenInfo


class Hooks:
  """The hooks that attention calls on a relative position, or on its module if it has parameters.

  By default none of them has an effect.
  """

  def places(self, info: TokenInfo) -> jax.Array:
    """Return the positions that `rotate` takes, `[B, T]`; by default `info.positions`."""
    return info.positions

  def rotate(self, x_BTNH: jax.Array, pos_BT: jax.Array) -> jax.Array:
    """Return queries or keys, rotated by their positions."""
    return x_BTNH

  def queries(self, q_BTNH: jax.Array, pos_BT: jax.Array) -> jax.Array:
    """Return transformed queries; override it if queries and keys differ."""
    return self.rotate(q_BTNH, pos_BT)

  def bias(self, n_heads: int, q: TokenInfo, k: TokenInfo) -> jax.Array | None:
    """Return a bias of the scaled scores, or None.

    Args:
      n_heads: N, the number of query heads.
      q: the queries, `[B, T]`.
      k: the keys, `[B, S]`.

    Returns:
      An array `[B or 1, N, T, S]`, or None.
    """
    return None

  def product(self, q: TokenInfo, k: TokenInfo) -> Product | None:
    """Return a product of position vectors to add to the scaled scores, or None."""
    return None

  def value_table(self) -> ValueTable | None:
    """Return position vectors to add to the values, or None."""
    return None

  def content(
    self, q_BTNH: jax.Array, k_BSKH: jax.Array, q: TokenInfo, k: TokenInfo
  ) -> tuple[Term, ...]:
    """Return terms to add to q k before scaling, which depend on queries, keys and positions.

    Args:
      q_BTNH: the rotated queries.
      k_BSKH: the rotated keys.
      q: the queries' token info, `[B, T]`.
      k: the keys' token info, `[B, S]`.

    Returns:
      The terms, possibly none.
    """
    return ()


@dataclasses.dataclass(frozen=True)
class Relative(Hooks, Part):
  """No relative position (NoPE): attention depends on order only through its mask.

  Other encodings derive from it and override some `Hooks`. Each hook except `rotate` has a property
  that announces it: `bias` and `biased`, `product` and `placed`, `content` and `contextual`,
  `value_table` and `valued`.
  """

  def make(self, dims: Any) -> Any:
    """Return the object with the hooks: a module if it has parameters, else itself."""
    return self

  def fits(self, head_dim: int) -> Iterator[str]:
    """Yield a sentence for each reason why heads of size `head_dim` do not fit."""
    yield from ()

  @property
  def biased(self) -> bool:
    """Whether `bias` returns an array."""
    return False

  @property
  def placed(self) -> bool:
    """Whether `product` returns a term."""
    return False

  @property
  def max_positions(self) -> int | None:
    """The number of positions that it supports; None: any number."""
    return None

  @property
  def contextual(self) -> bool:
    """Whether `content` returns terms."""
    return False

  @property
  def valued(self) -> bool:
    """Whether `value_table` returns vectors."""
    return False

  @property
  def reads(self) -> frozenset[str]:
    """The names of the `TokenInfo` extras that it uses."""
    return frozenset()

  @property
  def score_scale(self) -> float:
    """A factor of the default score scale (see `Yarn`)."""
    return 1.0
