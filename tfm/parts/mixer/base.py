"""Mixers: how tokens exchange what they know."""

from collections.abc import Iterator
import dataclasses
from typing import Any, ClassVar, Literal

import jax

from tfm.core.registry import Part
from tfm.parts.cache.base import Cache as CacheKind
from tfm.parts.cache.base import nbytes, zeros
from tfm.parts.cache.dense import DenseCache
from tfm.parts.state import Slot

Cache = Any  # The cache of one layer: see `tfm.parts.state`.


@dataclasses.dataclass(frozen=True)
class Mixer(Part):
  """`make(dims)` returns a fresh module `(x_BTD, ctx, cache) -> (y_BTD, cache)`; `cache` None means
  none is kept.

  `heads` of every mixer in a stack that shares a relative position must agree.
  """

  #: Names of projections that only `parts.dense.together` asks, all of one input: their weights may
  #: be laid out as one.
  joined: ClassVar[tuple[tuple[str, ...], ...]] = ()

  def make(self, dims: Any) -> Any:
    """The module."""
    raise AssertionError(f'{type(self).__name__} must make a module')

  def state(self, d_model: int) -> dict[str, Slot]:
    """Return the state of a layer while decoding, by name: entries per token and arrays per row."""
    raise AssertionError(f'{type(self).__name__} must name its state')

  def init_cache(
    self, d_model: int, B: int, S: int, dtype: Any, kind: CacheKind = DenseCache()
  ) -> Cache:
    """Return an empty cache for B rows of S tokens: `{'tokens': store or None, 'rows': {name: [B,
    ...]}}`.
    """
    tokens, rows = (self.arrays(d_model, dtype, per) for per in ('token', 'row'))
    store = kind.init(tokens, B, S, self.lookback, self.reads) if tokens else None
    return {'tokens': store, 'rows': zeros(rows, (B,))}

  def cache_bytes(self, d_model: int, S: int, dtype: Any, kind: CacheKind = DenseCache()) -> int:
    """Return the bytes that a row of S tokens takes in this layer's cache, its row state among
    them.
    """
    return kind.bytes(self.arrays(d_model, dtype, 'token'), S, self.lookback) + self.state_bytes(
      d_model, dtype
    )

  def state_bytes(self, d_model: int, dtype: Any) -> int:
    """Return the bytes of a row's state, whatever its length."""
    return nbytes(self.arrays(d_model, dtype, 'row'))

  def arrays(
    self, d_model: int, dtype: Any, per: Literal['token', 'row']
  ) -> dict[str, jax.ShapeDtypeStruct]:
    """Return the state of one kind for a cache of `dtype`, without the axes of batch and time."""
    slots = {name: slot for name, slot in self.state(d_model).items() if slot.per == per}
    return {
      name: jax.ShapeDtypeStruct(slot.shape, slot.dtype or dtype) for name, slot in slots.items()
    }

  def flops(self, d_model: int, pairs: float) -> float:
    """Multiplications and additions a token takes when it looks at `pairs` tokens on average."""
    raise AssertionError(f'{type(self).__name__} must count its FLOPs')

  def pairs(self, length: int) -> float:
    """How many tokens a token of a document of `length` looks at on average."""
    raise AssertionError(f'{type(self).__name__} must say how far it looks')

  def fits(self, d_model: int) -> Iterator[str]:
    """Yields a sentence for each reason why the mixer cannot stand in a model of this width."""
    yield from ()

  def told_dim(self, d_model: int) -> int:
    """How many numbers of a head a relative position sees; 0 where none is asked."""
    return 0

  def value_dim(self, d_model: int) -> int:
    """How many numbers a value of a head has, to which a relative position may add; 0 where none is
    asked.
    """
    return self.told_dim(d_model)

  @property
  def common(self) -> Any:
    """What the layers of a stack share beside the stream: a spec whose `make(dims)` is a module `()
    -> array`, or None.

    The stack owns its parameters, and tells each layer the array as `ctx.common`.
    """
    return None

  @property
  def lends(self) -> str:
    """The name under which later layers use its keys and values, '' if none do."""
    return ''

  @property
  def lender(self) -> str:
    """The name under which it uses the keys and values of an earlier layer, '' if it has its own."""
    return ''

  def key_shape(self, d_model: int) -> tuple[int, int]:
    """Return (key heads, numbers of a key) of keys that it lends or borrows."""
    raise AssertionError(f'{type(self).__name__} must have keys')

  @property
  def max_positions(self) -> int | None:
    """How many positions it can tell, or None for any number."""
    return None

  @property
  def causal(self) -> bool:
    """True if no token can learn of a later one."""
    return True

  @property
  def lookback(self) -> int | None:
    """How many positions back a token sees at most; None: as many as there are."""
    return None

  @property
  def reads(self) -> frozenset[str]:
    """The extras of `TokenInfo` that it uses, such as 'prefix' or 'type'."""
    return frozenset()

  @property
  def provides(self) -> frozenset[str]:
    """The extras of `TokenInfo` that it adds for its own mask and relative position."""
    return frozenset()

  @property
  def masked(self) -> bool:
    """True if the attention mask alone decides which tokens a token depends on."""
    return False
