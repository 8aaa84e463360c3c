"""The fields of heads that ask keys: what attention has in common, whoever is looked at."""

from collections.abc import Iterator
import dataclasses
from typing import Any, Literal

import jax

from tfm.parts.norm.base import Norm


@dataclasses.dataclass(frozen=True)
class Heads:
  """`heads` query heads and `kv_heads` key heads of `head_dim` numbers, and how their scores are
  formed.

  `kv_heads` < `heads` shares each key head among heads / kv_heads consecutive query heads
  (arXiv:2305.13245); None is as many. `head_dim` None is d_model / heads. `bias` names the
  projections that have one ('qkvo', 'qkv', ''). `qk_norm` normalises queries and keys before
  rotation, per head, with one scale for all heads or (`qk_norm_over` 'each', Cohere) one for each,
  or ('all', OLMo 2) those of all heads as one vector. `clip` then keeps queries, keys and values
  within +- so much (MPT, DBRX). `cap` squashes scores to cap tanh(s / cap). `sink` learns one logit
  a head that takes attention and gives nothing. `scale` None is head_dim ** -0.5."""

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
    if self.heads < 1:
      yield f'heads={self.heads} is not a number of heads. Expected at least 1.'
    elif self.kv_heads is not None and (self.kv_heads < 1 or self.heads % self.kv_heads):
      yield f'heads={self.heads} is not a multiple of kv_heads={self.kv_heads}. Expected a divisor of heads, or none.'
    if self.head_dim is not None and self.head_dim < 1:
      yield f'head_dim={self.head_dim} is not a size. Expected at least 1, or none for d_model / heads.'
    if odd := sorted(set(self.bias) - set('qkvo')):
      yield f'bias={self.bias!r} names no projection {", ".join(odd)}. Expected letters of qkvo.'
    if self.clip is not None and self.clip <= 0:
      yield f'clip={self.clip} leaves nothing. Expected more than 0, or none.'

  def fits(self, d_model: int) -> Iterator[str]:
    """A sentence if heads must divide d_model and do not."""
    if self.head_dim is None and self.heads >= 1 and d_model % self.heads:
      yield f'heads={self.heads} does not divide d_model={d_model}. Set head_dim, or a number of heads that divides it.'

  def size(self, d_model: int) -> int:
    """H, the size of a head."""
    return self.head_dim or d_model // self.heads

  def sizes(self, d_model: int) -> tuple[int, int, int]:
    """(N, K, H): query heads, key heads and the size of each."""
    return self.heads, self.kv_heads or self.heads, self.size(d_model)


def tamed(s: Heads, dims: Any, x_BTNH: jax.Array, name: str = '', axis: str = 'N') -> jax.Array:
  """Queries, keys or values as `s` wants them before rotation: normed, if `name` says whose norm it
  is, and clipped.

  `axis` is the letter of their heads.
  """
  if name and s.qk_norm is not None:
    over_all = s.qk_norm_over == 'all'
    letters = {'head': 'H', 'all': axis, 'each': axis + 'H'}[s.qk_norm_over]
    norm = s.qk_norm.make(dims, letters).copy(name=f'{name}_norm')
    x_BTNH = (
      norm(x_BTNH.reshape(*x_BTNH.shape[:2], -1)).reshape(x_BTNH.shape)
      if over_all
      else norm(x_BTNH)
    )
  return x_BTNH if s.clip is None else x_BTNH.clip(-s.clip, s.clip)
