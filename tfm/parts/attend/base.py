"""The interface of attention kernels: softmax(cap(q k scale) + bias, masked) v."""

from collections.abc import Callable
import dataclasses

import jax

from tfm.core.registry import Part
from tfm.parts.attend.dropout import Dropout
from tfm.parts.attend.value_table import ValueTable
from tfm.parts.mask.base import Mask
from tfm.parts.term import Product, Term, sum_terms
from tfm.parts.tokeninfo import TokenInfo


def scores_fit(platform: str, B: int, N: int, T: int, S: int) -> bool:
  """Return whether a kernel that stores all scores is faster for this shape.

  That is up to 256 MB of float32 scores, and on a CPU only what nearly fits its caches.

  Args:
    platform: 'cpu', 'gpu' or 'tpu'.
    B: the batch size.
    N: the number of query heads.
    T: the number of queries.
    S: the number of keys.

  Returns:
    True if the scores should be stored.
  """
  return B * N * T * S < 1 << 26 and (platform != 'cpu' or T * S < 512 * 512)


@dataclasses.dataclass(frozen=True)
class Scores:
  """How attention scores are formed, as functions that a kernel may call on tiles.

  Attributes:
    scale: the factor of q k.
    mask: returns True where attention is allowed, for token infos that broadcast.
    biases: functions of token infos `[B, T]` and `[B, S]` to `[B or 1, N, T, S]`, added after scale
      and cap.
    contents: functions of queries, keys and their token infos to terms that are added to q k before
      the scale.
    cap: replace scores s by cap tanh(s / cap); None: no cap.
    sink_N: an extra logit per head that takes part in the softmax but has no value; None: no sink.
    drop: dropout of the probabilities; None: no dropout.
    ordered: whether the mask never allows a key that is later in the sequence than the query.
    value_tables: position vectors to add to the values.
    products: functions of token infos to products of position vectors, added after scale and cap.
  """

  scale: float
  mask: Mask
  biases: tuple[Callable[[TokenInfo, TokenInfo], jax.Array], ...] = ()
  contents: tuple[
    Callable[[jax.Array, jax.Array, TokenInfo, TokenInfo], tuple[Term, ...]], ...
  ] = ()
  cap: float | None = None
  sink_N: jax.Array | None = None
  drop: Dropout | None = None
  ordered: bool = False
  value_tables: tuple[ValueTable, ...] = ()
  products: tuple[Callable[[TokenInfo, TokenInfo], Product], ...] = ()

  @property
  def offsets(self) -> tuple[Callable[[TokenInfo, TokenInfo], jax.Array], ...]:
    """`biases` and `products` as one tuple of bias functions."""
    return self.biases + tuple(sum_terms(lambda q, k, f=f: (f(q, k),)) for f in self.products)


@dataclasses.dataclass(frozen=True)
class Attend(Part):
  """The interface of attention kernels. A query that may attend to no key returns zeros."""

  def __call__(
    self,
    q_BTNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    q: TokenInfo,
    k: TokenInfo,
    scores: Scores,
    reduce: str,
  ) -> jax.Array:
    """Return the attention output.

    Query head n uses key/value head n // (N / K).

    Args:
      q_BTNH: queries.
      k_BSKH: keys.
      v_BSKH: values; the last axis may differ from the last axis of keys.
      q: token info of the queries.
      k: token info of the keys.
      scores: how scores are formed.
      reduce: the dtype of the softmax.

    Returns:
      y_BTNH, in the dtype of the values.
    """
    raise AssertionError(f'{type(self).__name__} must define __call__')

  def refuses(
    self,
    q_BTNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    q: TokenInfo,
    k: TokenInfo,
    scores: Scores,
  ) -> str | None:
    """Return why the kernel does not support this call, or None if it does.

    Args:
      q_BTNH: queries.
      k_BSKH: keys.
      v_BSKH: values.
      q: token info of the queries.
      k: token info of the keys.
      scores: how scores are formed.

    Returns:
      A sentence, or None.
    """
    return None

  def loses(self, platform: str, B: int, N: int, T: int, S: int) -> str | None:
    """Return why a simpler kernel is faster, or None if this one is.

    Args:
      platform: 'cpu', 'gpu' or 'tpu'.
      B: the batch size.
      N: the number of query heads.
      T: the number of queries.
      S: the number of keys.

    Returns:
      A sentence, or None.
    """
    return None
