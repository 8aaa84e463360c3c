"""Projection of a pooled vector, for comparison with other vectors."""

from collections.abc import Iterator
import dataclasses

from flax import linen as nn
import jax

from tfm.parts.context import Dims
from tfm.parts.dense import Dense
from tfm.parts.head import pick as pick_lib
from tfm.parts.head.base import Head, HeadContext
from tfm.parts.head.pick import Pick, pool, width
from tfm.parts.norm.base import Norm


@dataclasses.dataclass(frozen=True)
class Project(Head):
  """Projection of the pooled vector h, norm(h) W + b (CLIP, arXiv:2103.00020).

  Output: `embeds` `[B, dim]`.

  Attributes:
    dim: width of the output; None: the width of the pooled vector.
    pick: pooling, see `tfm.parts.head.pick`.
    norm: applied to the pooled vector (CLIP's norm after the last layer of images).
    bias: add b.
    unit: scale the result to unit length, so that a dot product of two is their cosine.
    name: name of the output, such as `image_embeds`.
  """

  dim: int | None = 512
  pick: Pick = 'first'
  norm: Norm | None = None
  bias: bool = False
  unit: bool = True

  def make(self, dims):
    return _Project(self, dims)

  def returns(self, alone):
    del alone
    return (self.name or 'embeds',)

  def flops(self, dims, length):
    vectors, D = length if self.pick == 'each' else 1, width(self.pick, dims.d_model)
    return vectors * 2 * D * (self.dim or D)

  def vector(self, d_model):
    return None if self.pick == 'each' else self.dim or width(self.pick, d_model)

  def fits(self, tower):
    yield from pick_lib.fits(self.pick, tower)

  def check(self) -> Iterator[str]:
    if self.dim is not None and self.dim < 1:
      yield (
        f'dim={self.dim} is not a width. Expected at least 1, or none for the width of the pooled '
        'vector.'
      )


class _Project(nn.Module):
  spec: Project
  dims: Dims

  @nn.compact
  def __call__(self, x_BTD: jax.Array, context: HeadContext) -> dict[str, jax.Array]:
    s, D = self.spec, width(self.spec.pick, self.dims.d_model)
    h = pool(x_BTD, context, s.pick)
    if s.norm is not None:
      h = s.norm.make(self.dims.replace(d_model=D)).copy(name='norm')(h)
    h = Dense('DR', (D, s.dim or D), self.dims, bias=s.bias, name='out')(h)
    return {s.name or 'embeds': pick_lib.normalize(h) if s.unit else h}
