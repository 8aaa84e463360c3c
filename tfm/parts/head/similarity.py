"""Similarity of every pair of vectors of two sets, such as texts and images."""

from collections.abc import Iterator
import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.core.axes import sharded
from tfm.core.module import Module
from tfm.parts.context import Dims
from tfm.parts.head.base import Head, HeadContext

_SUFFIX = '_embeds'


@dataclasses.dataclass(frozen=True)
class Similarity(Head):
  """Scaled dot products of two sets of vectors, exp(s) x y^T + b (CLIP, arXiv:2103.00020).

  Outputs: `logits_per_text` `[texts, images]` and its transpose `logits_per_image`, for
  `text_embeds` and `image_embeds`. For other inputs the suffix is their name without `_embeds`. The
  two sets can have different sizes.

  Attributes:
    rows, columns: names of the two inputs, outputs of towers, `[B, R]` each.
    scale: initial value of s, the logarithm of the factor (CLIP: ln(1 / 0.07)).
    bias: initial value of b (SigLIP, arXiv:2303.15343: -10), None for no bias.
    name: replaces `logits` in the names of the outputs.
  """

  rows: str = 'text_embeds'
  columns: str = 'image_embeds'
  scale: float = 2.6592
  bias: float | None = None

  def make(self, dims):
    return _Similarity(self, dims)

  def returns(self, alone):
    del alone
    return tuple(f'{self.name or "logits"}_per_{read.removesuffix(_SUFFIX)}' for read in self.reads)

  @property
  def reads(self):
    return self.rows, self.columns

  def examples(self, dtype):
    return {name: jnp.zeros((1, 1), dtype) for name in self.reads}

  def flops(self, dims, length):
    """Return 0, as the cost is per pair in a batch and not per sequence."""
    del dims, length
    return 0.0

  def check(self) -> Iterator[str]:
    if self.rows == self.columns:
      yield f'rows and columns are both {self.rows!r}. Expected two different outputs.'


class _Similarity(Module):
  spec: Similarity
  dims: Dims

  @nn.compact
  def __call__(self, x_BTD: jax.Array, context: HeadContext) -> dict[str, jax.Array]:
    del x_BTD
    s, param = self.spec, self.dims.run.precision.dtype('param')
    row_BR, column_SR = context.outputs[s.rows], context.outputs[s.columns]
    scale = self.param('scale', sharded(nn.initializers.constant(s.scale), ''), (), param)
    logits_BS = jnp.einsum('BR,SR->BS', row_BR, column_SR) * jnp.exp(scale.astype(row_BR.dtype))
    if s.bias is not None:
      bias = self.param('bias', sharded(nn.initializers.constant(s.bias), ''), (), param)
      logits_BS = logits_BS + bias.astype(row_BR.dtype)
    return dict(zip(s.returns(True), (logits_BS, logits_BS.T), strict=True))
