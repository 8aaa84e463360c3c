"""A gated short convolution (LFM2)."""

from collections.abc import Iterator
import dataclasses
from typing import ClassVar

from flax import linen as nn
import jax

from tfm.core.module import Module
from tfm.parts.context import Ctx, Dims
from tfm.parts.dense import Dense, project_jointly
from tfm.parts.mask.base import Mask
from tfm.parts.mask.causal import Causal
from tfm.parts.mask.window import Window
from tfm.parts.mixer.base import Cache, Mixer
from tfm.parts.recurrent import ShortConv
from tfm.parts.state import SEGMENT, Slot, documents, row_state, with_state


@dataclasses.dataclass(frozen=True)
class GatedConv(Mixer):
  """A gated depthwise convolution over the last `size` tokens (LFM2, arXiv:2511.23404).

  The output is (c_t * conv(b_t * x_t)) Wo, where b, c and x are projections of the residual stream.
  Each channel is convolved separately, within the document. It costs 8 D^2 + 2 `size` D FLOPs per
  token; the state of a sequence is the last inputs of the convolution, (`size` - 1) D + 1 numbers.

  Attributes:
    size: the number of tokens of the convolution.
    bias: whether the projections and the convolution have a bias.
  """

  size: int = 3
  bias: bool = False

  joined: ClassVar[tuple[tuple[str, ...], ...]] = (('b', 'c', 'x'),)

  def check(self) -> Iterator[str]:
    if self.size < 1:
      yield f'size={self.size} is not a number of tokens. Expected at least 1.'

  @property
  def mask(self) -> Mask:
    """The tokens that a token depends on, as an attention mask."""
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
