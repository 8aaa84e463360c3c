"""The interface of mixers, which exchange information between tokens."""

from collections.abc import Iterator
import dataclasses
from typing import Any, ClassVar, Literal

import jax
from jax.typing import DTypeLike

from tfm.core.registry import Part
from tfm.parts.cache.base import Cache as CacheKind
from tfm.parts.cache.base import nbytes, zeros
from tfm.parts.cache.dense import DenseCache
from tfm.parts.state import Slot

Cache = Any  # The cache of one layer: see `tfm.parts.state`.


@dataclasses.dataclass(frozen=True)
class Mixer(Part):
  """The interface of mixers, such as attention, convolutions and recurrences.

  `make(dims)` returns a module `(x_BTD, ctx, cache) -> (y_BTD, cache)`; `cache` is None outside
  decoding. All mixers of a stack that shares a relative position must have the same `heads`.
  """

  #: Groups of projections of the same input that only `parts.dense.project_jointly` applies.
  #: Decoding may fuse the weights of a group.
  joined: ClassVar[tuple[tuple[str, ...], ...]] = ()

  def make(self, dims: Any) -> Any:
    """Return a new module with these dims."""
    raise AssertionError(f'{type(self).__name__} must define make')

  def state(self, d_model: int) -> dict[str, Slot]:
    """Return the decoding state of a layer, by name: entries per token and per sequence."""
    raise AssertionError(f'{type(self).__name__} must define state')

  def init_cache(
    self, d_model: int, B: int, S: int, dtype: DTypeLike, kind: CacheKind = DenseCache()
  ) -> Cache:
    """Return an empty cache of this layer.

    Args:
      d_model: the width of the model.
      B: the batch size.
      S: the maximum length of a sequence, in tokens.
      dtype: the dtype of state that declares none.
      kind: the cache layout.

    Returns:
      `{'tokens': store or None, 'rows': {name: [B, ...]}}`.
    """
    tokens, rows = (self.arrays(d_model, dtype, per) for per in ('token', 'row'))
    store = kind.init(tokens, B, S, self.lookback, self.reads) if tokens else None
    return {'tokens': store, 'rows': zeros(rows, (B,))}

  def cache_bytes(
    self, d_model: int, S: int, dtype: DTypeLike, kind: CacheKind = DenseCache()
  ) -> int:
    """Return the bytes of one sequence in the cache of this layer.

    Args:
      d_model: the width of the model.
      S: the length of the sequence, in tokens.
      dtype: the dtype of state that declares none.
      kind: the cache layout.

    Returns:
      The size in bytes, including the state per sequence.
    """
    tokens = kind.bytes(self.arrays(d_model, dtype, 'token'), S, self.lookback)
    return tokens + self.state_bytes(d_model, dtype)

  def state_bytes(self, d_model: int, dtype: DTypeLike) -> int:
    """Return the bytes of the state of one sequence that do not depend on its length."""
    return nbytes(self.arrays(d_model, dtype, 'row'))

  def arrays(
    self, d_model: int, dtype: DTypeLike, per: Literal['token', 'row']
  ) -> dict[str, jax.ShapeDtypeStruct]:
    """Return the shapes of one kind of state, without the batch and time axes.

    Args:
      d_model: the width of the model.
      dtype: the dtype of state that declares none.
      per: 'token' for entries per token, 'row' for entries per sequence.

    Returns:
      Shapes and dtypes by name.
    """
    arrays = {}
    for name, slot in self.state(d_model).items():
      if slot.per == per:
        arrays[name] = jax.ShapeDtypeStruct(slot.shape, slot.dtype or dtype)
    return arrays

  def flops(self, d_model: int, pairs: float) -> float:
    """Return the FLOPs per token, if it attends to `pairs` tokens on average."""
    raise AssertionError(f'{type(self).__name__} must define flops')

  def pairs(self, length: int) -> float:
    """Return the mean number of tokens that a token of a document attends to."""
    raise AssertionError(f'{type(self).__name__} must define pairs')

  def fits(self, d_model: int) -> Iterator[str]:
    """Yield a sentence for each reason why the mixer does not fit a model of this width."""
    yield from ()

  def relative_dim(self, d_model: int) -> int:
    """Return the head size that relative positions apply to; 0 if they do not apply."""
    return 0

  def value_dim(self, d_model: int) -> int:
    """Return the head size of values that relative positions may add to; 0 if none."""
    return self.relative_dim(d_model)

  @property
  def common(self) -> Any:
    """The config of an array that all layers of a stack share, or None.

    Its `make(dims)` returns a module `() -> array`. The stack owns the parameters and passes the
    array to each layer as `ctx.common`.
    """
    return None

  @property
  def lends(self) -> str:
    """The name under which later layers use the keys and values; '': none."""
    return ''

  @property
  def lender(self) -> str:
    """The `lends` of the earlier layer that provides keys and values; '': none."""
    return ''

  def key_shape(self, d_model: int) -> tuple[int, int]:
    """Return (key heads, head size) of the keys that the layer lends or borrows."""
    raise AssertionError(f'{type(self).__name__} must have keys')

  @property
  def max_positions(self) -> int | None:
    """The number of positions that it supports; None: any number."""
    return None

  @property
  def causal(self) -> bool:
    """Whether no output depends on later tokens."""
    return True

  @property
  def lookback(self) -> int | None:
    """The number of earlier positions that a token depends on; None: all."""
    return None

  @property
  def reads(self) -> frozenset[str]:
    """The names of the `TokenInfo` extras that it uses, such as 'prefix' or 'type'."""
    return frozenset()

  @property
  def provides(self) -> frozenset[str]:
    """The names of the `TokenInfo` extras that it adds for its own mask and relative position."""
    return frozenset()

  @property
  def masked(self) -> bool:
    """Whether the attention mask alone decides which tokens a token depends on."""
    return False
