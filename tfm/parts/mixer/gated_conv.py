"""A gated short convolution: each token sees its few predecessors, channel by channel (LFM2)."""

from collections.abc import Iterator
import dataclasses
from typing import ClassVar

from flax import linen as nn
import jax

from tfm.core.module import Module
from tfm.parts.context import Ctx, Dims
from tfm.parts.dense import Dense, project_jointly
from tfm.parts.mask.causal import Causal
from tfm.parts.mask.window import Window
from tfm.parts.mixer.base import Cache, Mixer
from tfm.parts.recurrent import ShortConv
from tfm.parts.state import SEGMENT, Slot, documents, row_state, with_state


@dataclasses.dataclass(frozen=True)
class GatedConv(Mixer):
  """(c_t * conv(b_t * x_t)) Wo, with b, c and x projections of the stream (LFM2, arXiv:2511.23404).

  The convolution covers the last `size` tokens of the document, each channel by itself. The row
  state is its tail.

  *Cost*: 8 D^2 + 2 `size` D FLOPs a token; (`size` - 1) D + 1 numbers of state a row.

  Attributes:
    size: the number of tokens of the convolution.
    bias: the projections and the convolution have a bias.
  """

  size: int = 3
  bias: bool = False

  joined: ClassVar[tuple[tuple[str, ...], ...]] = (('b', 'c', 'x'),)

  def check(self) -> Iterator[str]:
    if self.size < 1:
      yield f'size={self.size} covers no token. Expected at least 1.'

  @property
  def mask(self):
    """Return which tokens a token depends on, as an attention mask."""
    return Causal() & Window(self.size)

  def make(self, dims):
    return _GatedConv(self, dims)

  def state(self, d_model):
    return {
      'tail': Slot((self.size - 1, d_model), 'float32', 'row'),
      SEGMENT: Slot((), 'int32', 'row'),
    }

  def flops(self, d_model, pairs):
    return 8 * d_model**2 + 2 * self.size * d_model

  def pairs(self, length):
    return 1.0


class _GatedConv(Module):
  spec: GatedConv
  dims: Dims

  @nn.compact
  def __call__(self, x_BTD: jax.Array, ctx: Ctx, cache: Cache = None) -> tuple[jax.Array, Cache]:
    s, (B, _, D), dims = self.spec, x_BTD.shape, self.dims
    project = (Dense('DD', (D, D), dims, bias=s.bias, name=name) for name in ('b', 'c', 'x'))
    b_BTD, c_BTD, inner_BTD = project_jointly(x_BTD, *project)
    rows = row_state(s.state(D), cache, B)
    docs = documents(ctx.info.segment_ids, rows[SEGMENT])
    y_BTD, tail = ShortConv(D, s.size, dims, bias=s.bias, name='conv')(
      b_BTD * inner_BTD, rows['tail'], docs
    )
    new = {'tail': tail(False), SEGMENT: docs.segment[:, -1]}
    cache = with_state(cache, new, lambda: {'tail': tail(True), SEGMENT: docs.segment}, docs.real)
    return Dense('DD', (D, D), dims, bias=s.bias, name='o')(c_BTD * y_BTD), cache
