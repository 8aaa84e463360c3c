"""The one maths of attention, whatever the kernel: softmax(cap(q k scale) + bias where allowed) v."""

from collections.abc import Callable
import dataclasses

import jax

from tfm.core.registry import Part
from tfm.parts.attend.added import Added
from tfm.parts.attend.dropout import Dropout
from tfm.parts.mask.base import Mask
from tfm.parts.term import Product, Term, totals
from tfm.parts.tokeninfo import TokenInfo


def few(platform: str, B: int, N: int, T: int, S: int) -> bool:
  """Whether scores `[B, N, T, S]` are better all kept: at most 256 MB in float32, and on a CPU near
  its caches.
  """
  return B * N * T * S < 1 << 26 and (platform != 'cpu' or T * S < 512 * 512)


@dataclasses.dataclass(frozen=True)
class Scores:
  """How scores are formed: everything between q k and the softmax, as functions a kernel may call
  on tiles.

  `mask(q, k)` is where looking is allowed, on infos that broadcast; `biases` are added to the
  scaled and capped scores, on `[B, T]` and `[B, S]` infos, each `-> [B or 1, N, T, S]`, and so are
  `products`; `contents`, which are given queries and keys too, are added to q k before the scale.
  `added` to values: the vectors of the pairs in which they are read. `cap` squashes to cap tanh(s /
  cap). `sink_N` is one more logit a head that takes its share of the softmax and gives nothing.
  `drop` thins the probabilities. `ordered` promises that nobody sees a key that stands behind it in
  the row."""

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
  added: tuple[Added, ...] = ()
  products: tuple[Callable[[TokenInfo, TokenInfo], Product], ...] = ()

  @property
  def offsets(self) -> tuple[Callable[[TokenInfo, TokenInfo], jax.Array], ...]:
    """All that is added to the scaled and capped scores, as `biases` are."""
    return self.biases + tuple(totals(lambda q, k, f=f: (f(q, k),)) for f in self.products)


@dataclasses.dataclass(frozen=True)
class Attend(Part):
  """A kernel. A query that may look at nobody gets zeros."""

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
    """y_BTNH; query head n reads kv head n // (N / K); the softmax is computed in dtype `reduce`."""
    raise AssertionError(f'{type(self).__name__} must attend')

  def refuses(
    self,
    q_BTNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    q: TokenInfo,
    k: TokenInfo,
    scores: Scores,
  ) -> str | None:
    """A sentence why the kernel cannot serve this; None if it can."""
    return None

  def loses(self, platform: str, B: int, N: int, T: int, S: int) -> str | None:
    """A sentence why a simpler kernel is faster on this platform ('cpu', 'gpu', 'tpu') for scores
    `[B, N, T, S]`.
    """
    return None
