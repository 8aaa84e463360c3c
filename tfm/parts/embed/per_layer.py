"""Token embeddings with an additional embedding for every layer (Gemma 3n)."""

from collections.abc import Iterator
import dataclasses

import jax
import jax.numpy as jnp

from tfm.core.axes import sharded
from tfm.parts.dense import Dense
from tfm.parts.embed.base import Embedded
from tfm.parts.embed.tokens import Tokens, _Tokens
from tfm.parts.norm.base import Norm
from tfm.parts.norm.rms import RMSNorm


@dataclasses.dataclass(frozen=True)
class PerLayer(Tokens):
  """Token embeddings x, and per-layer embeddings e_l of each token (Gemma 3n).

  For layer l, e_l = (norm(x W_l / sqrt D) + sqrt(P) E_l[token]) / sqrt 2. Layers use e_l if
  `residual=altup` has inputs. Token ids outside the second table use its entry 0.

  Attributes:
    layer_vocab: number of entries of the second table E; None: that of the first table.
    layer_dim: P, the width of e_l.
    layer_norm: norm of the projections of x.
  """

  layer_vocab: int | None = None
  layer_dim: int = 256
  layer_norm: Norm = RMSNorm()

  def check(self) -> Iterator[str]:
    yield from super().check()
    for name in ('layer_vocab', 'layer_dim'):
      if (value := getattr(self, name)) is not None and value < 1:
        yield f'{name}={value} is not a size. Expected at least 1.'
    if self.dim is not None or self.vocab is None:
      yield (
        'dim and a shared table cannot be combined with per-layer embeddings. '
        'Expected dim=none, and vocab.'
      )

  def make(self, dims):
    return _PerLayer(self, dims)

  @property
  def layered(self):
    return self.layer_dim


class _PerLayer(_Tokens):
  spec: PerLayer

  def setup(self):
    super().setup()
    s, d = self.spec, self.dims
    L, dtype = d.depth, d.run.precision.dtype('param')
    shape = (s.layer_vocab or s.vocab or 1, L * s.layer_dim)
    self.layer_table_VR = self.param(
      'layer_table', sharded(d.init.weight('embed', *shape, d), 'VR'), shape, dtype
    )
    self.layer_project = Dense('DR', (d.d_model, L * s.layer_dim), d)
    self.layer_norm = s.layer_norm.make(d, 'R')

  def start(self, inputs, outputs, next_B) -> Embedded:
    """Return the token and per-layer embeddings, before positions are added."""
    embedded = super().start(inputs, outputs, next_B)
    return embedded._replace(layered_BTLR=self._layered(inputs['input_ids'], embedded.x_BTD))

  def _layered(self, tok_BT: jax.Array, x_BTD: jax.Array) -> jax.Array:
    L, R = self.dims.depth, self.spec.layer_dim
    tok_BT = jnp.where(tok_BT < self.layer_table_VR.shape[0], tok_BT, 0)
    looked_up = jnp.take(self.layer_table_VR, tok_BT, axis=0).astype(x_BTD.dtype) * R**0.5
    projected = self.layer_project(x_BTD) * self.dims.d_model**-0.5
    projected = self.layer_norm(projected.reshape(*tok_BT.shape, L, R))
    return (projected + looked_up.reshape(projected.shape)) * 2**-0.5
