"""Mean of the outputs of other heads."""

import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.parts.head.base import Head, HeadContext


@dataclasses.dataclass(frozen=True)
class Average(Head):
  """Mean of earlier outputs, such as DeiT's class and distillation logits (arXiv:2012.12877).

  Output: `logits`, with the shape that all these outputs share.

  Attributes:
    of: names of the outputs.
    name: name of the output. Default: `logits`.
  """

  of: tuple[str, ...] = ('cls_logits', 'distillation_logits')

  def make(self, dims):
    return _Average(self)

  @property
  def reads(self):
    return self.of

  def returns(self, alone):
    del alone
    return (self.name or 'logits',)

  def examples(self, dtype):
    return {name: jnp.zeros((1, 1), dtype) for name in self.of}

  def flops(self, dims, length):
    return 0.0

  def check(self):
    if not self.of:
      yield 'of=() is empty. Expected names of outputs of earlier heads.'


class _Average(nn.Module):
  spec: Average

  @nn.compact
  def __call__(self, x_BTD: jax.Array, context: HeadContext) -> dict[str, jax.Array]:
    outputs = [context.outputs[name] for name in self.spec.of]
    return {self.spec.name or 'logits': sum(outputs[1:], start=outputs[0]) / len(outputs)}
