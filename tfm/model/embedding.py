"""The token table, read on the way in and, where it is tied, on the way out."""

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.core.axes import constrained, sharded, trailing
from tfm.core.module import Module
from tfm.model.spec import Model
from tfm.parts.context import Dims
from tfm.parts.contract import against_rows
from tfm.parts.dense import Dense, weight
from tfm.parts.stored import Stored


class Embedding(Module):
  """Tokens to vectors: `lookup`, then the absolute position is added, then `finish`, which may make them wider.

  With `embed.back` it is `lookup` that does, and `leave` makes what leaves the stack as narrow as the table.
  """

  spec: Model
  dims: Dims

  def setup(self):
    s, d = self.spec.embed, self.dims.foot
    dtype, width = d.run.precision.dtype('param'), 'D' if s.dim is None else 'R'
    R = s.dim or d.d_model
    shape = (self.spec.vocab, R)
    self.table_VD = weight(self, 'table', sharded(d.init.weight('embed', *shape, d), f'V{width}'), shape, dtype)
    width = 'D' if s.back else width
    if s.types:
      shape = (s.types, d.d_model)
      self.types_YD = self.param('types', sharded(d.init.weight('types', *shape, d), f'Y{width}'), shape, dtype)
    if s.query:
      init = sharded(d.init.weight('types', 1, d.d_model, d), width)
      self.query_R = self.param('query', init, (d.d_model,), dtype)
    self.norm = s.norm.make(d, width) if s.norm is not None else None
    D = self.dims.d_model
    self.project = Dense('RD', (R, D), self.dims, bias=not s.back) if s.dim is not None else None
    self.back = Dense('DR', (D, R), self.dims) if s.back else None
    self.rows = s.rows.make(d.replace(d_model=R)) if s.rows is not None else None

  def __call__(self, tok_BT: jax.Array) -> jax.Array:
    return self.leave(self.finish(self.lookup(tok_BT, jnp.zeros_like(tok_BT)), False))

  def lookup(self, tok_BT: jax.Array, type_BT: jax.Array | None) -> jax.Array:
    """x_BTD in the compute dtype."""
    s, dtype = self.spec.embed, self.dims.run.precision.dtype('compute')
    table_VD = self.table_VD
    if isinstance(table_VD, Stored):
      x_BTD = table_VD.rows(tok_BT, dtype)
    else:
      # Looked up whole rows at a time: split along D, every device would need every token's row.
      x_BTD = jnp.take(constrained(table_VD, 'V-'), tok_BT, axis=0).astype(dtype)
    if self.rows is not None:
      x_BTD = self.rows(x_BTD)
    if s.scale != 1 or s.power:
      x_BTD = x_BTD * jnp.asarray(s.scale * self.dims.d_model**s.power, dtype)
    if s.back and self.project is not None:
      x_BTD = self.project(x_BTD)
    if s.types:
      type_BT = jnp.zeros_like(tok_BT) if type_BT is None else type_BT
      x_BTD = x_BTD + jnp.take(self.types_YD, type_BT, axis=0).astype(dtype)
    return x_BTD

  def asked(self, type_BP: jax.Array) -> jax.Array:
    """x_BPD of tokens that are asked about, whatever they are: the vector `query`, and that of their type."""
    s, dtype = self.spec.embed, self.dims.run.precision.dtype('compute')
    query_R = self.query_R.astype(dtype)
    x_BPD = jnp.broadcast_to(query_R[None, None], (*type_BP.shape, *query_R.shape))
    return x_BPD + jnp.take(self.types_YD, type_BP, axis=0).astype(dtype) if s.types else x_BPD

  def finish(self, x_BTD: jax.Array, train: bool) -> jax.Array:
    """Norm and dropout of the sum of embeddings and positions, and the projection to the model's width."""
    x_BTD = x_BTD if self.norm is None else self.norm(x_BTD)
    x_BTD = drop(x_BTD, self.spec.embed.dropout, train, self)
    return constrained(x_BTD if self.project is None or self.spec.embed.back else self.project(x_BTD), 'BTD')

  def leave(self, x_BTD: jax.Array) -> jax.Array:
    """What has left the stack, in the width of the token table if it is to go back to it."""
    return x_BTD if self.back is None else self.back(x_BTD)

  def words(self) -> jax.Array | Stored:
    """The table as the head uses it, in the compute dtype."""
    if isinstance(self.table_VD, Stored):
      return self.table_VD
    table_VD = self.table_VD.astype(self.dims.run.precision.dtype('compute'))
    return table_VD if self.rows is None else self.rows(table_VD)


def drop(x_BTD: jax.Array, rate: float, train: bool, module: nn.Module) -> jax.Array:
  """Inverted dropout in training, x otherwise."""
  if not train or not rate:
    return x_BTD
  keep = jax.random.bernoulli(module.make_rng('dropout'), 1 - rate, x_BTD.shape)
  return jnp.where(keep, x_BTD / (1 - rate), 0)


class Unembedding(Module):
  """Vectors to logits. `table_VD` is the token table where the head is tied to it."""

  spec: Model
  dims: Dims

  @nn.compact
  def __call__(self, x_BTD: jax.Array, table_VD: jax.Array | Stored | None) -> jax.Array:
    s, d, V = self.spec.head, self.dims, self.spec.vocab
    assert s is not None
    dtype = d.run.precision.dtype('param')
    if s.transform is not None:
      width, R = 'D' if self.spec.embed.dim is None else 'R', self.spec.embed.dim or d.d_model
      x_BTD = Dense(f'D{width}', (d.d_model, R), d, bias=s.transform.bias, name='transform')(x_BTD)
      x_BTD = s.transform.norm.make(d, width).copy(name='norm')(s.transform.act(x_BTD))
    factor = s.scale * d.d_model**s.power
    if factor != 1:
      x_BTD = x_BTD * jnp.asarray(factor, x_BTD.dtype)
    if s.tied:
      assert table_VD is not None
      if isinstance(table_VD, Stored):
        logits_BTV = table_VD.contract(x_BTD)
      else:
        logits_BTV = against_rows(x_BTD, table_VD)
    else:
      logits_BTV = Dense('DV', (x_BTD.shape[-1], V), d, name='head', role='head')(x_BTD)
    if s.bias:
      bias_V = self.param('bias', sharded(nn.initializers.zeros, 'V'), (V,), dtype)
      logits_BTV = logits_BTV + trailing((factor * bias_V).astype(x_BTD.dtype), 3)
    return logits_BTV if s.cap is None else s.cap * jnp.tanh(logits_BTV / s.cap)
