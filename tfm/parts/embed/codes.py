"""Embeddings of audio codes from several codebooks."""

from collections.abc import Iterator
import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from tfm.core.axes import constrained, sharded
from tfm.core.module import Module
from tfm.parts.context import Dims
from tfm.parts.dropout import drop
from tfm.parts.embed.base import (
  SEQUENCE,
  Embed,
  Embedded,
  check_sequence,
  check_shape,
  sequence_info,
)
from tfm.parts.norm.base import Norm


@dataclasses.dataclass(frozen=True)
class Codes(Embed):
  """Sum of code embeddings, scale sum_k E_k[code_k] over codebooks k (MusicGen, arXiv:2306.05284).

  Inputs: `input_ids`, int32 `[B, T, books]`; optionally `attention_mask` or `segment_ids`, and
  `position_ids`, int32 `[B, T]`. The delays between codebooks (MusicGen) are applied by the data,
  not here.

  Note:
    MusicGen's `input_ids` in transformers are `[B * books, T]`.

  Attributes:
    books: number of codebooks, each with a separate table.
    codes: entries of a table, including special codes.
    scale: factor of the sum.
    norm, dropout: applied after positions are added.
  """

  needs: ClassVar = ('input_ids',)
  takes: ClassVar = SEQUENCE

  books: int = 4
  codes: int = 2049
  scale: float = 1.0
  norm: Norm | None = None
  dropout: float = 0.0

  def make(self, dims):
    return _Codes(self, dims)

  def shapes(self, batch, length):
    return {'input_ids': jax.ShapeDtypeStruct((batch, length, self.books), jnp.int32)}

  def check(self) -> Iterator[str]:
    if self.books < 1 or self.codes < 1:
      yield f'books={self.books}, codes={self.codes} must be positive. Expected at least 1 each.'

  def check_inputs(self, given, name_of, limit):
    ids = given['input_ids']
    check_shape(name_of('input_ids'), ids, 'BTU', {'U': self.books})
    check_sequence(given, name_of, 'input_ids', ids.shape[:2], limit)

  def info(self, inputs, shape):
    return sequence_info(inputs, shape)


class _Codes(Module):
  spec: Codes
  dims: Dims

  def setup(self):
    s, d = self.spec, self.dims
    shape = (s.books, s.codes, d.d_model)
    init = sharded(d.init.weight('embed', *shape[1:], d), 'UVD')
    self.table_UVD = self.param('table', init, shape, d.run.precision.dtype('param'))
    self.norm = s.norm.make(d) if s.norm is not None else None

  def __call__(self, inputs, outputs):
    return self.finish(self.start(inputs, outputs, None).x_BTD, False)

  def start(self, inputs, outputs, next_B) -> Embedded:
    """Return the sum of the embeddings of each frame's codes."""
    del outputs
    ids_BTU, dtype = inputs['input_ids'], self.dims.run.precision.dtype('compute')
    lookup = jax.vmap(lambda table_VD, ids_BT: jnp.take(table_VD, ids_BT, axis=0), in_axes=(0, 2))
    x_BTD = jnp.sum(lookup(constrained(self.table_UVD, '-V-'), ids_BTU).astype(dtype), axis=0)
    if self.spec.scale != 1:
      x_BTD = x_BTD * jnp.asarray(self.spec.scale, dtype)
    info = sequence_info(inputs, (ids_BTU.shape[0], ids_BTU.shape[1]), next_B)
    return Embedded(x_BTD, info, ordered='position_ids' not in inputs)

  def finish(self, x_BTD: jax.Array, train: bool) -> jax.Array:
    """Apply norm and dropout."""
    x_BTD = x_BTD if self.norm is None else self.norm(x_BTD)
    return constrained(drop(x_BTD, self.spec.dropout, train, self), 'BTD')

  def project_out(self, x_BTD: jax.Array) -> jax.Array:
    """Return the last hidden state unchanged."""
    return x_BTD
