"""Token embeddings preceded by learned global vectors (PEGASUS-X)."""

from collections.abc import Iterator
import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from tfm.core import errors
from tfm.core.axes import sharded
from tfm.parts.embed import ids_in_range
from tfm.parts.embed.tokens import Tokens, _Tokens
from tfm.parts.encoder_only import check_uncached


@dataclasses.dataclass(frozen=True)
class Globals(Tokens):
  """Learned global vectors followed by the embeddings of `Tokens` (arXiv:2208.04347).

  For encoders. The vectors are global tokens, which the token extra 'global' marks. They have no
  positions, and the model does not return them. A sequence may hold one document only.

  Attributes:
    count: number of vectors.
  """

  takes: ClassVar = tuple(name for name in Tokens.takes if name != 'global_attention_mask')

  count: int = 32

  def make(self, dims):
    return _Globals(self, dims)

  @property
  def prepended(self):
    return self.count

  def check(self) -> Iterator[str]:
    yield from super().check()
    if self.count < 1:
      yield f'count={self.count} is not a number of vectors. Expected at least 1, or embed=tokens.'
    if self.dim is not None:
      yield f'dim={self.dim}: the vectors are as wide as the model. Expected dim=none.'

  def check_inputs(self, given, name_of, limit):
    super().check_inputs(given, name_of, limit)
    segments = given.get('segment_ids')
    if (
      segments is not None
      and ids_in_range.on_host(segments)
      and np.asarray(segments).max(initial=0) > 1
    ):
      raise errors.UserError(
        f'apply: {name_of("segment_ids")} packs several documents into one sequence, which has '
        'only one set of global vectors. Expected one document per sequence.'
      )


class _Globals(_Tokens):
  spec: Globals

  def setup(self):
    super().setup()
    d, shape = self.dims.foot, (self.spec.count, self.dims.d_model)
    init = sharded(d.init.weight('types', *shape, d), 'PD')
    self.globals_PD = self.param('globals', init, shape, d.run.precision.dtype('param'))

  def start(self, inputs, outputs, next_B):
    check_uncached(next_B is not None, 'globals', 'the global vectors attend to later tokens')
    start = super().start(inputs, outputs, next_B)
    n, info = self.spec.count, start.info
    info = jax.tree.map(lambda a: jnp.pad(a, ((0, 0), (n, 0), *((0, 0),) * (a.ndim - 2))), info)
    first = jnp.arange(n + start.x_BTD.shape[1])[None] < n
    segment_BT = jnp.where(first, jnp.max(info.segment_ids, 1, keepdims=True), info.segment_ids)
    marked_BT = jnp.broadcast_to(first, segment_BT.shape)
    info = dataclasses.replace(info, segment_ids=segment_BT).with_extras(**{'global': marked_BT})
    # `finish` inserts the vectors here, after positions are added.
    x_BTD = jnp.pad(start.x_BTD, ((0, 0), (n, 0), (0, 0)))
    return start._replace(x_BTD=x_BTD, info=info, ordered=False)

  def finish(self, x_BTD: jax.Array, train: bool) -> jax.Array:
    x_BTD = super().finish(x_BTD, train)
    n = self.spec.count
    globals_BPD = jnp.broadcast_to(
      self.globals_PD.astype(x_BTD.dtype), (len(x_BTD), n, x_BTD.shape[-1])
    )
    return jnp.concatenate([globals_BPD, x_BTD[:, n:]], 1)
