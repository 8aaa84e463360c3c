"""The arguments of parts: `Run` and `Dims` at construction, `Ctx` at each call."""

from collections.abc import Iterator, Mapping
import dataclasses
from typing import Any

from flax import struct
import jax

from tfm.core.precision import Precision
from tfm.parts.adapter.base import Adapter
from tfm.parts.attend.auto import Auto
from tfm.parts.attend.base import Attend
from tfm.parts.cache.base import Cache
from tfm.parts.cache.dense import DenseCache
from tfm.parts.init.base import Init
from tfm.parts.quantize.base import Quantize
from tfm.parts.rounding.base import Rounding
from tfm.parts.tokeninfo import TokenInfo

LOOPS = ('scan', 'unroll')


@dataclasses.dataclass(frozen=True)
class Pipeline:
  """The schedule of pipeline stages, for a mesh that splits layers (`tfm.model.loops.pipeline`).

  Attributes:
    microbatches: the number of micro-batches; None: 4 for each stage, or the most that fit.
    rounds: the number of groups of layers of a stage.
  """

  microbatches: int | None = None
  rounds: int = 1


@dataclasses.dataclass(frozen=True)
class Run:
  """Static options of a run that change neither the parameters nor, beyond rounding, the results.

  Attributes:
    precision: the dtypes of parameters, activations and reductions.
    loop: 'scan' compiles the repeated blocks of a segment as one scanned body, so compile time does
      not grow with depth. 'unroll' compiles each block: often faster, longer to compile.
    remat: a rematerialisation policy of `tfm.model.remat`.
    ffn_slices: the number of slices of the hidden layer of a GLU in the backward pass, if `remat`
      recomputes it (see `tfm.parts.ffn.sliced`). None: a number for slices of about 64 MiB on a
      device, up to 8.
    attend: the attention kernel.
    cache: the layout of the key/value cache during decoding.
    pipeline: the schedule of pipeline stages.
    quantize: the quantization of projections, which also changes results.
  """

  precision: Precision = Precision()
  loop: str = 'scan'
  remat: str = 'none'
  ffn_slices: int | None = dataclasses.field(default=None, kw_only=True)
  attend: Attend = Auto()
  cache: Cache = DenseCache()
  pipeline: Pipeline = Pipeline()
  quantize: Quantize = Quantize()

  @property
  def recomputes(self) -> bool:
    """Whether the backward pass recomputes the hidden layers of feed-forward networks."""
    return self.remat not in ('none', 'dots', 'dots_batch')

  def check(self) -> Iterator[str]:
    """Yield a sentence for each invalid field."""
    if self.ffn_slices is not None and self.ffn_slices < 1:
      yield f'ffn_slices={self.ffn_slices} is too small. Expected at least 1, or none.'
    if self.loop not in LOOPS:
      yield f'loop={self.loop!r} is unknown. Expected {" or ".join(LOOPS)}.'


@dataclasses.dataclass(frozen=True)
class Dims:
  """Sizes, initializer and run options that a part needs while it is built.

  An attention layer sets `heads`, `head_dim`, `value_dim` and `causal` for the parts inside it. A
  mixture of experts sets `experts`.

  Attributes:
    d_model: the width of the residual stream.
    depth: the number of blocks of the tower.
    init: the initializer of weights.
    run: the static options of the run.
    heads: the number of query heads.
    head_dim: the size of a query or key head.
    value_dim: the size of a value head.
    causal: whether the attention mask is causal.
    experts: the number of experts.
    d_embed: the width of embeddings before they are projected to `d_model`; 0: `d_model`.
    d_table: the width of the token table; 0: the same.
    vocab: the number of entries of the token table.
    adapter: the adapter that is added to projections.
    rounding: the rounding of projections, which a block sets.
  """

  d_model: int
  depth: int
  init: Init
  run: Run
  heads: int = 0
  head_dim: int = 0
  value_dim: int = 0
  causal: bool = True
  experts: int = 0
  d_embed: int = 0
  d_table: int = 0
  vocab: int = 0
  adapter: Adapter = Adapter()
  rounding: Rounding = Rounding()

  def replace(self, **changes) -> 'Dims':
    """Return a copy with these fields changed."""
    return dataclasses.replace(self, **changes)

  @property
  def foot(self) -> 'Dims':
    """The dims at the input of the stack, before embeddings are projected to `d_model`."""
    return self.replace(d_model=self.d_embed or self.d_model)


@struct.dataclass
class Ctx:
  """The side inputs of every layer of a stack.

  Attributes:
    info: the tokens of `x_BTD`.
    towers: the outputs `[B, S, D]` and token info of other towers, by name.
    slot: int32 `[B]`, the number of cached tokens of each sequence; None: no cache.
    shared: the relative position that all layers share, as (config, module with parameters).
    residual: the module that joins the blocks of the stack; None: a plain residual stream.
    common: the array that all mixers of the stack share (see `Mixer.common`).
    layer: int32, the index of the block, from 0.
    train: whether dropout is on.
    ordered: whether the tokens of each document are in the order of their positions.
    sizes_E: int32 `[E]`, the number of tokens of each expert, for a feed-forward layer that
      computes E experts at a time.
    scale_r1: `[rows, 1]`, the factor of the hidden layer of each row, for sliced experts.
    cond_BD: the conditioning vector of norms and residual scales.
    grid: the number of rows and columns of image patches.
    lent: the keys, values and token info of layers that lend them, by name. Layers add to it.
    layered_BTLR: per-layer embeddings of each token, from the input layer.
  """

  info: TokenInfo
  towers: Mapping[str, tuple[jax.Array, TokenInfo]] = struct.field(default_factory=dict)
  slot: jax.Array | None = None
  shared: tuple[Any, Any] | None = struct.field(pytree_node=False, default=None)
  residual: Any = struct.field(pytree_node=False, default=None)
  common: Any = None
  layer: jax.Array | None = None
  train: bool = struct.field(pytree_node=False, default=False)
  ordered: bool = struct.field(pytree_node=False, default=False)
  sizes_E: jax.Array | None = None
  scale_r1: jax.Array | None = None
  cond_BD: jax.Array | None = None
  lent: dict[str, Any] = struct.field(pytree_node=False, default_factory=dict)
  layered_BTLR: jax.Array | None = None
  grid: tuple[int, int] | None = struct.field(pytree_node=False, default=None)
