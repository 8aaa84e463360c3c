"""Attention pooling with a learned query."""

from collections.abc import Iterator
import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.core.axes import sharded
from tfm.core.module import Module
from tfm.parts.act.gelu import GeluTanh
from tfm.parts.context import Ctx, Dims
from tfm.parts.cross.attention import CrossAttention
from tfm.parts.ffn.base import FFN
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.head.base import Head, HeadContext
from tfm.parts.head.pick import normalize
from tfm.parts.norm.base import Norm
from tfm.parts.norm.layer import LayerNorm
from tfm.parts.tokeninfo import TokenInfo

#: Name of the tower itself in the context of the cross-attention.
_TOWER = 'tokens'


@dataclasses.dataclass(frozen=True)
class Probe(Head):
  """Attention pooling with one learned query (SigLIP, arXiv:2303.15343).

  Computes a + ffn(norm(a)), where a is the attention of the query to all tokens that are not
  padding. Output: `pooler_output` `[B, D]`.

  Attributes:
    heads: number of attention heads.
    bias: projections of the attention that have a bias, letters of 'qkvo'.
    norm, ffn: the layer after the attention.
    unit: scale the result to unit length.
    name: name of the output, such as `image_embeds`.
  """

  heads: int = 12
  bias: str = 'qkvo'
  norm: Norm = LayerNorm(1e-6)
  ffn: FFN = Mlp(3072, GeluTanh())
  unit: bool = False

  @property
  def attention(self) -> CrossAttention:
    """The attention from the query to the tokens."""
    return CrossAttention(self.heads, bias=self.bias, tower=_TOWER)

  def make(self, dims):
    return _Probe(self, dims)

  def returns(self, alone):
    del alone
    return (self.name or 'pooler_output',)

  def flops(self, dims, length):
    D, attention = dims.d_model, self.attention
    return attention.flops(D, length) + length * attention.memory_flops(D, D) + self.ffn.flops(D)

  def vector(self, d_model):
    return d_model

  def fits(self, tower):
    width = next((s.d_model for s in reversed(tower.segments) if s.d_model), tower.d_model)
    yield from self.attention.fits(width)
    if not self.ffn.per_token:
      name = self.ffn.table().name_of(self.ffn)
      yield (
        f'ffn={name}: the output of a token depends on other tokens. '
        'Expected a network per token, such as mlp.'
      )

  def check(self) -> Iterator[str]:
    yield from self.attention.check()


class _Probe(Module):
  spec: Probe
  dims: Dims

  @nn.compact
  def __call__(self, x_BTD: jax.Array, context: HeadContext) -> dict[str, jax.Array]:
    s, dims = self.spec, self.dims
    B, D = x_BTD.shape[0], x_BTD.shape[-1]
    init = sharded(dims.init.weight('query', 1, D, dims), 'D')
    query_D = self.param('query', init, (D,), dims.run.precision.dtype('param'))
    query_B1D = jnp.broadcast_to(query_D.astype(x_BTD.dtype), (B, 1, D))
    # One query per sequence attends to all its documents; only padding is masked out.
    real_BT = (context.info.segment_ids > 0).astype(jnp.int32)
    zeros_B1 = jnp.zeros((B, 1), jnp.int32)
    tokens = {_TOWER: (x_BTD, TokenInfo(context.info.positions, real_BT))}
    ctx = Ctx(TokenInfo(zeros_B1, zeros_B1 + 1), tokens, train=context.train)
    y_B1D, _ = s.attention.make(dims).copy(name='attention')(query_B1D, ctx)
    normed_B1D = s.norm.make(dims).copy(name='norm')(y_B1D)
    fed_B1D, _ = s.ffn.make(dims).copy(name='ffn')(normed_B1D, ctx)
    pooled_BD = (y_B1D + fed_B1D)[:, 0]
    return {s.name or 'pooler_output': normalize(pooled_BD) if s.unit else pooled_BD}
