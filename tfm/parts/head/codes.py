"""Logits over the codes of several codebooks."""

from collections.abc import Iterator
import dataclasses

from flax import linen as nn
import jax

from tfm.parts.context import Dims
from tfm.parts.dense import Dense
from tfm.parts.head.base import Head, HeadContext


@dataclasses.dataclass(frozen=True)
class CodeLogits(Head):
  """Logits of each codebook, h W_k + b_k (MusicGen, arXiv:2306.05284).

  Output: `logits` `[B, T, books, codes]`. If the tower also has a language-model head, the name is
  `code_logits`.

  Note:
    MusicGen's logits in transformers are `[B * books, T, codes]`.

  Attributes:
    books: number of codebooks.
    codes: number of codes in each.
    bias: add b_k.
    name: name of the output.
  """

  books: int = 4
  codes: int = 2048
  bias: bool = False

  def make(self, dims):
    return _CodeLogits(self, dims)

  def returns(self, alone):
    return (self.name or ('logits' if alone else 'code_logits'),)

  def flops(self, dims, length):
    return length * 2.0 * dims.d_model * self.books * self.codes

  def check(self) -> Iterator[str]:
    if self.books < 1 or self.codes < 1:
      yield f'books={self.books}, codes={self.codes} must be positive. Expected at least 1 each.'


class _CodeLogits(nn.Module):
  spec: CodeLogits
  dims: Dims

  @nn.compact
  def __call__(self, x_BTD: jax.Array, context: HeadContext) -> dict[str, jax.Array]:
    s = self.spec
    name = s.name or ('logits' if context.alone else 'code_logits')
    layer = Dense('DUV', (self.dims.d_model, s.books, s.codes), self.dims, bias=s.bias, name='out')
    return {name: layer(x_BTD)}
