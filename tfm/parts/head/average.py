"""The mean of the outputs of other heads."""

import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.parts.head.base import Head, HeadContext


@dataclasses.dataclass(frozen=True)
class Average(Head):
  """`logits`, the mean of earlier outputs of one shape (DeiT's class and distillation logits,
  arXiv:2012.12877).

  Attributes:
    of: names of the outputs.
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
      yield 'of=() averages nothing. Expected names of outputs of earlier heads.'


class _Average(nn.Module):
  spec: Average

  @nn.compact
  def __call__(self, x_BTD: jax.Array, context: HeadContext) -> dict[str, jax.Array]:
    found = [context.outputs[name] for name in self.spec.of]
    return {self.spec.name or 'logits': sum(found[1:], start=found[0]) / len(found)}
