"""Classification of sequences or tokens, and pooled vectors."""

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
from tfm.parts.head.pick import Pick, pool, width
from tfm.parts.norm.base import Norm


@dataclasses.dataclass(frozen=True)
class Classify(Head):
  """Classification head, norm(act(h W + b)) U + c for the pooled vector h (BERT, arXiv:1810.04805).

  Outputs: `logits` `[B, labels]`, or `[B, T, labels]` for pick='each'. If the tower also has a
  language-model head, the name is `class_logits`. `pooler_output`, the vector before the labels, is
  returned if there is an activation or no label.

  Attributes:
    labels: number of classes; 0 returns only the vector.
    pick: pooling, see `tfm.parts.head.pick`.
    hidden: activation of a layer before the labels (BERT's pooler: tanh), None for no layer.
    bias, hidden_bias: biases of the labels and of that layer.
    dropout: rate before the labels.
    norm: applied before the labels, after the activation if there is one.
    late: pool after that layer, not before it (EuroBERT, arXiv:2503.05500).
    name: name of the logits.
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
    if not self.labels:
      return pooled
    return (*pooled, self._logits(alone))

  def _logits(self, alone: bool) -> str:
    return self.name or ('logits' if alone else 'class_logits')

  def flops(self, dims, length):
    D = width(self.pick, dims.d_model)
    vectors = length if self.pick == 'each' else 1
    flops = vectors * 2 * D * self.labels
    if self.hidden is not None:
      flops += 2 * D * D * (length if self.late else vectors)
    return flops

  def fits(self, tower):
    if self.labels:  # poolers of published decoders use the first token, although it has no context
      yield from pick_lib.fits(self.pick, tower)

  def check(self) -> Iterator[str]:
    unchanged = self.hidden is None and self.norm is None and self.pick == 'each'
    if self.labels < 0 or (not self.labels and unchanged):
      yield (
        f'labels={self.labels}, hidden={self.hidden}: the output is the last hidden state. '
        'Expected labels of at least 1, or an activation as hidden.'
      )
    if self.late and (self.hidden is None or self.pick in ('each', 'first_patches')):
      hidden = 'none' if self.hidden is None else self.hidden.table().name_of(self.hidden)
      yield (
        f'late=true pools after the hidden layer, but hidden={hidden} and pick={self.pick}. '
        'Expected an activation and a pick of one vector, or late=false.'
      )


class _Classify(nn.Module):
  spec: Classify
  dims: Dims

  @nn.compact
  def __call__(self, x_BTD: jax.Array, context: HeadContext) -> dict[str, jax.Array]:
    s, D = self.spec, width(self.spec.pick, self.dims.d_model)
    h = x_BTD if s.late else pool(x_BTD, context, s.pick)
    out = {}
    if s.hidden is not None:
      h = s.hidden(Dense('DD', (D, D), self.dims, bias=s.hidden_bias, name='hidden')(h))
    if s.norm is not None:
      h = s.norm.make(self.dims.replace(d_model=D)).copy(name='norm')(h)
    h = pool(h, context, s.pick) if s.late else h
    if s.hidden is not None or not s.labels:
      out['pooler_output'] = h
    if s.labels:
      h = drop(h, s.dropout, context.train, self)
      project = Dense('DV', (D, s.labels), self.dims, bias=s.bias, name='out')
      out[s._logits(context.alone)] = project(h)
    return out
