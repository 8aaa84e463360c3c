"""What a part is told: `Run` and `Dims` while it is built, `Ctx` while it runs."""

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
from tfm.parts.rounding.base import Rounding
from tfm.parts.tokeninfo import TokenInfo

LOOPS = ('scan', 'unroll')


@dataclasses.dataclass(frozen=True)
class Run:
  """The static choices of a run. None of them changes a model's parameters or, beyond rounding, its
  numbers.

  `loop` compiles a segment's repeats as one scanned body ('scan': compile time flat in depth) or
  one after another ('unroll': often faster, longer to compile). `remat` names a policy of
  `tfm.model.remat`. `attend` is the kernel, `cache` how earlier tokens are kept while decoding."""

  precision: Precision = Precision()
  loop: str = 'scan'
  remat: str = 'none'
  attend: Attend = Auto()
  cache: Cache = DenseCache()

  def check(self) -> Iterator[str]:
    if self.loop not in LOOPS:
      yield f'loop={self.loop!r} is not one of {", ".join(LOOPS)}.'


@dataclasses.dataclass(frozen=True)
class Dims:
  """The surroundings of a part while it is built: sizes it does not own, how weights start, and the
  run.

  `depth` counts the blocks of the tower. An attention layer fills in `heads`, `head_dim`,
  `value_dim` (the size of a head's value) and `causal` for the parts inside it, a mixture of
  experts fills in `experts`. `d_embed` is the width of embeddings before they are projected to
  `d_model` (0: the same), `d_table` that of the token table (0: the same), `vocab` its number of
  rows. `adapter` is added to projections. A block fills in `rounding`, of its projections."""

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
    return dataclasses.replace(self, **changes)

  @property
  def foot(self) -> 'Dims':
    """The surroundings at the foot of the stack, where embeddings have yet to be projected to the
    model's width.
    """
    return self.replace(d_model=self.d_embed or self.d_model)


@struct.dataclass
class Ctx:
  """The side inputs of every layer of a stack, in one object.

  `info` describes the tokens of `x_BTD`, `towers` has the outputs of other towers and their token
  info by name. `slot` is the number of tokens that the cache holds of each row, `[B]`. `cond_BD`
  conditions norms and residual scales, `grid` is the number of rows and columns of image patches.
  `shared` is a relative position owned by the whole stack: as it is chosen, and as it is asked,
  with its parameters. `residual` joins the blocks of the stack, with its parameters (None: plain),
  `common` what the stack's mixers share (see `Mixer.common`), and `layer` is the number of the
  block, from 0. `train` turns dropout on. `ordered` says that the tokens of a document stand in the
  order of their positions. `sizes_E`, told to a feed-forward that stands for E experts, is how many
  of the rows, in order, are each expert's. `lent` has the keys, values and token info of layers
  that lend them, by name; layers add to it. `layered_BTLR` are vectors of each token for each
  layer, which the input layer gives."""

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
  cond_BD: jax.Array | None = None
  lent: dict[str, Any] = struct.field(pytree_node=False, default_factory=dict)
  layered_BTLR: jax.Array | None = None
  grid: tuple[int, int] | None = struct.field(pytree_node=False, default=None)
