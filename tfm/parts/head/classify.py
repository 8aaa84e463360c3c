"""Class scores of a sequence or of each token, or the vector that they are computed from."""

from collections.abc import Iterator
import dataclasses

from flax import linen as nn
import jax

from tfm.parts.act.base import Act
from tfm.parts.context import Dims
from tfm.parts.dense import Dense
from tfm.parts.dropout import drop
from tfm.parts.head import pick as pick_lib
from tfm.parts.head.base import Head, HeadContext
from tfm.parts.head.pick import Pick, picked, width
from tfm.parts.norm.base import Norm


@dataclasses.dataclass(frozen=True)
class Classify(Head):
  """norm(act(h W + b)) U + c, where h is the vector that `pick` names (see `tfm.parts.head.pick`).

  Outputs: `logits` `[B, labels]` (`[B, T, labels]` for pick='each'; `class_logits` beside a
  language-model head), and `pooler_output`, the vector before the labels, if there is an activation
  or no label.

  Attributes:
    labels: number of classes; 0 returns only the vector.
    pick: which hidden states are pooled.
    hidden: activation of a layer before the labels (BERT's pooler: tanh), None for no layer.
    bias, hidden_bias: biases of the labels and of that layer.
    dropout: rate before the labels.
    norm: applied before the labels, after the activation if there is one.
    late: pool after that layer, not before it (EuroBERT, arXiv:2503.05500).
  """

  labels: int = 2
  pick: Pick = 'first'
  hidden: Act | None = None
  bias: bool = True
  dropout: float = 0.0
  hidden_bias: bool = True
  norm: Norm | None = None
  late: bool = False

  def make(self, dims):
    return _Classify(self, dims)

  def returns(self, alone):
    pooled = ('pooler_output',) if self.hidden is not None or not self.labels else ()
    return (
      (*pooled, self.name or ('logits' if alone else 'class_logits')) if self.labels else pooled
    )

  def flops(self, dims, length):
    D, times = width(self.pick, dims.d_model), length if self.pick == 'each' else 1
    hidden = 0 if self.hidden is None else 2 * D * D * (length if self.late else times)
    return times * 2 * D * self.labels + hidden

  def fits(self, tower):
    if self.labels:  # the pooler of a published decoder takes the first token all the same
      yield from pick_lib.fits(self.pick, tower)

  def check(self) -> Iterator[str]:
    if self.labels < 0 or (
      not self.labels and self.hidden is None and self.norm is None and self.pick == 'each'
    ):
      yield f'labels={self.labels} and hidden={self.hidden} return nothing new. Expected labels, or an activation.'
    if self.late and (self.hidden is None or self.pick in ('each', 'first_patches')):
      yield (
        f'late pools after the hidden layer, and hidden={self.hidden}, pick={self.pick}. '
        'Expected an activation and a pick of one vector, or late=false.'
      )


class _Classify(nn.Module):
  spec: Classify
  dims: Dims

  @nn.compact
  def __call__(self, x_BTD: jax.Array, context: HeadContext) -> dict[str, jax.Array]:
    s, D = self.spec, width(self.spec.pick, self.dims.d_model)
    h, out = x_BTD if s.late else picked(x_BTD, context, s.pick), {}
    if s.hidden is not None:
      h = s.hidden(Dense('DD', (D, D), self.dims, bias=s.hidden_bias, name='hidden')(h))
    if s.norm is not None:
      h = s.norm.make(self.dims.replace(d_model=D)).copy(name='norm')(h)
    h = picked(h, context, s.pick) if s.late else h
    if s.hidden is not None or not s.labels:
      out['pooler_output'] = h
    if s.labels:
      h = drop(h, s.dropout, context.train, self)
      name = s.name or ('logits' if context.alone else 'class_logits')
      out[name] = Dense('DV', (D, s.labels), self.dims, bias=s.bias, name='out')(h)
    return out
