"""The head configuration that self-attention and cross-attention share."""

from collections.abc import Iterator
import dataclasses
from typing import Any, Literal

import jax

from tfm.parts.norm.base import Norm


@dataclasses.dataclass(frozen=True)
class Heads:
  """Number and size of attention heads, and options of their projections and scores.

  Attributes:
    heads: N, the number of query heads.
    kv_heads: K, the number of key/value heads, each shared by N / K consecutive query heads
      (arXiv:2305.13245); None: N.
    head_dim: H, the size of a head; None: d_model / heads.
    bias: the projections that have a bias, letters of 'qkvo'.
    qk_norm: a norm of queries and keys before rotation; None: no norm.
    qk_norm_over: 'head' normalises each head with one scale for all heads, 'each' with a scale per
      head (Cohere), 'all' normalises all heads as one vector (OLMo 2).
    clip: clip queries, keys and values to [-clip, clip] (MPT, DBRX); None: no clipping.
    cap: replace scores s by cap tanh(s / cap); None: no cap.
    sink: learn one extra logit per head that takes part in the softmax but has no value.
    scale: the factor of scores; None: head_dim ** -0.5.
    dropout: the dropout rate of attention probabilities.
  """

  heads: int = 8
  kv_heads: int | None = None
  head_dim: int | None = None
  _: dataclasses.KW_ONLY
  bias: str = ''
  qk_norm: Norm | None = None
  qk_norm_over: Literal['head', 'all', 'each'] = 'head'
  clip: float | None = None
  cap: float | None = None
  sink: bool = False
  scale: float | None = None
  dropout: float = 0.0

  def check(self) -> Iterator[str]:
    """Yield a sentence for each invalid field."""
    if self.heads < 1:
      yield f'heads={self.heads} is not a number of heads. Expected at least 1.'
    elif self.kv_heads is not None and (self.kv_heads < 1 or self.heads % self.kv_heads):
      yield (
        f'heads={self.heads} is not a multiple of kv_heads={self.kv_heads}. '
        'Expected a divisor of heads, or none.'
      )
    if self.head_dim is not None and self.head_dim < 1:
      yield (
        f'head_dim={self.head_dim} is not a size. Expected at least 1, or none for d_model / heads.'
      )
    if odd := sorted(set(self.bias) - set('qkvo')):
      yield f'bias={self.bias!r} has unknown letters {", ".join(odd)}. Expected letters of qkvo.'
    if self.clip is not None and self.clip <= 0:
      yield f'clip={self.clip} is not positive. Expected more than 0, or none.'

  def fits(self, d_model: int) -> Iterator[str]:
    """Yield a sentence if the heads do not divide `d_model`."""
    if self.head_dim is None and self.heads >= 1 and d_model % self.heads:
      yield (
        f'heads={self.heads} does not divide d_model={d_model}. '
        'Expected a divisor of d_model, or a value for head_dim.'
      )

  def size(self, d_model: int) -> int:
    """Return H, the size of a head."""
    return self.head_dim or d_model // self.heads

  def sizes(self, d_model: int) -> tuple[int, int, int]:
    """Return (N, K, H): the number of query heads and key/value heads, and their size."""
    return self.heads, self.kv_heads or self.heads, self.size(d_model)


def norm_and_clip(
  s: Heads, dims: Any, x_BTNH: jax.Array, name: str = '', axis: str = 'N'
) -> jax.Array:
  """Return queries, keys or values after the optional norm and clipping of `s`.

  Args:
    s: the head options.
    dims: the dims of the attention layer.
    x_BTNH: queries, keys or values.
    name: the prefix of the norm's parameters, such as 'q'; '' skips the norm, as for values.
    axis: the axis letter of the heads, 'N' for query heads or 'K' for key/value heads.

  Returns:
    An array of the same shape and dtype.
  """
  if name and s.qk_norm is not None:
    letters = {'head': 'H', 'all': axis, 'each': axis + 'H'}[s.qk_norm_over]
    norm = s.qk_norm.make(dims, letters).copy(name=f'{name}_norm')
    if s.qk_norm_over == 'all':
      x_BTNH = norm(x_BTNH.reshape(*x_BTNH.shape[:2], -1)).reshape(x_BTNH.shape)
    else:
      x_BTNH = norm(x_BTNH)
  return x_BTNH if s.clip is None else x_BTNH.clip(-s.clip, s.clip)
