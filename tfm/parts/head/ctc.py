"""Connectionist temporal classification."""

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
  """Label logits per frame, h W + b (CTC, Graves et al., 2006).

  Output: `logits` `[B, T, labels]`. If the tower also has a language-model head, the name is
  `ctc_logits`.

  Attributes:
    labels: number of labels, including the blank.
    bias: add b.
    dropout: rate before the projection.
    name: name of the output.
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
    if self.labels < 2:
      yield f'labels={self.labels} is too small. Expected at least 2: the blank and a label.'
    if not 0 <= self.dropout < 1:
      yield f'dropout={self.dropout} is not a rate. Expected at least 0 and less than 1.'


class _Ctc(nn.Module):
  spec: Ctc
  dims: Dims

  @nn.compact
  def __call__(self, x_BTD: jax.Array, context: HeadContext) -> dict[str, jax.Array]:
    s = self.spec
    x_BTD = drop(x_BTD, s.dropout, context.train, self)
    name = s.name or ('logits' if context.alone else 'ctc_logits')
    project = Dense('DV', (self.dims.d_model, s.labels), self.dims, bias=s.bias, name='out')
    return {name: project(x_BTD)}
