"""Learned query vectors in place of an input."""

from collections.abc import Iterator
import dataclasses

import jax
import jax.numpy as jnp

from tfm.core import errors
from tfm.core.axes import constrained, sharded
from tfm.core.module import Module
from tfm.parts.context import Dims
from tfm.parts.dropout import drop
from tfm.parts.embed.base import Embed, Embedded, unpadded
from tfm.parts.norm.base import Norm


@dataclasses.dataclass(frozen=True)
class Latents(Embed):
  """Learned query vectors, the same for each example (Perceiver, arXiv:2103.03206).

  The Q-Former (arXiv:2301.12597) uses them too. There is no input. The batch size is that of the
  output of `tower`, which blocks attend to with `cross.tower`. A Perceiver has `towers={'inputs':
  Tower(Features(...), segments=(), norm=None)}`, and blocks with `cross=attention` and
  `tower='inputs'`.

  Attributes:
    count: number of vectors. Their positions are 0 to count - 1.
    tower: name of the tower that gives the batch size.
    norm, dropout: applied after positions are added.
  """

  count: int = 64
  tower: str = 'inputs'
  norm: Norm | None = None
  dropout: float = 0.0

  def make(self, dims):
    return _Latents(self, dims)

  def shapes(self, batch, length):
    return {}

  def tokens(self, length):
    return self.count

  @property
  def towers(self):
    return (self.tower,)

  def check(self) -> Iterator[str]:
    if self.count < 1:
      yield f'count={self.count} is too small. Expected at least 1.'

  def check_inputs(self, given, name_of, limit):
    if limit is not None and limit < self.count:
      raise errors.UserError(
        f'apply: embed.count={self.count} vectors are too many, the position table has {limit} '
        f'entries. Expected at most {limit}.'
      )


class _Latents(Module):
  spec: Latents
  dims: Dims

  def setup(self):
    s, d = self.spec, self.dims
    shape = (s.count, d.d_model)
    init = sharded(d.init.weight('positions', *shape, d), 'PD')
    self.latents_PD = self.param('latents', init, shape, d.run.precision.dtype('param'))
    self.norm = s.norm.make(d) if s.norm is not None else None

  def __call__(self, inputs, outputs):
    return self.finish(self.start(inputs, outputs, None).x_BTD, False)

  def start(self, inputs, outputs, next_B) -> Embedded:
    """Return the vectors for each example of the tower's batch."""
    del inputs
    if next_B is not None:
      raise errors.UserError(
        'apply: a cache cannot be used with embed=latents, which has no later tokens. '
        'Expected cache=None.'
      )
    latents_PD = self.latents_PD.astype(self.dims.run.precision.dtype('compute'))
    B, P = outputs[self.spec.tower][0].shape[0], self.spec.count
    return Embedded(jnp.broadcast_to(latents_PD[None], (B, *latents_PD.shape)), unpadded(B, P))

  def finish(self, x_BTD: jax.Array, train: bool) -> jax.Array:
    """Apply norm and dropout."""
    x_BTD = x_BTD if self.norm is None else self.norm(x_BTD)
    return constrained(drop(x_BTD, self.spec.dropout, train, self), 'BTD')

  def project_out(self, x_BTD: jax.Array) -> jax.Array:
    """Return the last hidden state unchanged."""
    return x_BTD
