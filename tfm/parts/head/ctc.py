"""Scores of labels for each frame, for connectionist temporal classification (CTC, Graves et al.,
2006).
"""

from collections.abc import Iterator
import dataclasses

from flax import linen as nn
import jax

from tfm.parts.context import Dims
from tfm.parts.dense import Dense
from tfm.parts.dropout import drop
from tfm.parts.head.base import Head, HeadContext


@dataclasses.dataclass(frozen=True)
class Ctc(Head):
  """h W + b for each frame: `logits` `[B, T, labels]` (`ctc_logits` if there is a language-model
  head).

  Attributes:
    labels: number of labels, with the blank.
    bias: whether there is b.
    dropout: rate before the projection.
  """

  labels: int = 32
  bias: bool = True
  dropout: float = 0.0

  def make(self, dims):
    return _Ctc(self, dims)

  def returns(self, alone):
    return (self.name or ('logits' if alone else 'ctc_logits'),)

  def flops(self, dims, length):
    return length * 2.0 * dims.d_model * self.labels

  def check(self) -> Iterator[str]:
    if self.labels < 2 or not 0 <= self.dropout < 1:
      yield f'labels={self.labels}, dropout={self.dropout}. Expected a blank and a label, and a share less than 1.'


class _Ctc(nn.Module):
  spec: Ctc
  dims: Dims

  @nn.compact
  def __call__(self, x_BTD: jax.Array, context: HeadContext) -> dict[str, jax.Array]:
    s = self.spec
    x_BTD = drop(x_BTD, s.dropout, context.train, self)
    name = s.name or ('logits' if context.alone else 'ctc_logits')
    return {
      name: Dense('DV', (self.dims.d_model, s.labels), self.dims, bias=s.bias, name='out')(x_BTD)
    }
