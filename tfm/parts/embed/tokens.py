"""Token embeddings, and the token table that a tied head shares."""

from collections.abc import Iterator
import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from tfm.core import errors
from tfm.core.axes import constrained, mesh_axes, sharded
from tfm.core.module import Module
from tfm.parts.context import Dims
from tfm.parts.dense import Dense, weight
from tfm.parts.dropout import drop
from tfm.parts.embed import ids_in_range, targets
from tfm.parts.embed.base import Embed, Embedded, sequence_info
from tfm.parts.norm.base import Norm
from tfm.parts.stored import Stored


@dataclasses.dataclass(frozen=True)
class Tokens(Embed):
  """Token embeddings, E[token] scale D^power + E_type[type] + E_task[task].

  After positions are added, norm and dropout are applied.

  Inputs, int32 `[B, T]`: `input_ids`; optionally `attention_mask` (1: token, 0: padding) or
  `segment_ids` (0: padding, from 1: packed documents), `position_ids` (default: the position in the
  document), `token_type_ids`, `task_type_ids`, `lang_ids` (see `router=language`), `prefix_mask`,
  `global_attention_mask`, and `order_ids` with `target_positions` `[B, P]` (see
  `tfm.parts.embed.targets`). Ids outside the vocabulary are an error, also at padding (see
  `tfm.parts.embed.ids_in_range`).

  Attributes:
    vocab: number of token ids. None: share the table of the main tower (the `embed` of an encoder).
    scale: factor of the embeddings.
    power: exponent of a further factor, D^power.
    types: number of token types (BERT: 2).
    tasks: number of task types (ERNIE 3.0, arXiv:2107.02137). Without `task_type_ids` the task is
      0.
    rows: a norm of each table entry, for embeddings and for a tied head (FixNorm).
    norm: norm after positions are added; None: no norm.
    early_norm: apply `norm` before positions are added (Blenderbot Small's decoder).
    dropout: rate after the norm.
    dim: width of the table if it is not d_model; a projection follows (ALBERT, arXiv:1909.11942).
    back: with `dim`, project to d_model before positions are added, and back to `dim` after the
      last layer, both without biases (OPT-350M).
    query: add a learned vector for the inputs `target_positions` (XLNet).
    mask_token: id of a token with a zero embedding. Other embeddings are multiplied by 0.88 / (1 -
      r), with r the share of mask tokens in the document (ESM's token dropout). None: no such
      token.
  """

  needs: ClassVar = ('input_ids',)
  takes: ClassVar[tuple[str, ...]] = (
    'attention_mask',
    'segment_ids',
    'position_ids',
    'token_type_ids',
    'task_type_ids',
    'lang_ids',
    'prefix_mask',
    'global_attention_mask',
    *targets.NAMES,
  )
  provides: ClassVar = frozenset({'prefix', 'global', 'type', 'language', *targets.EXTRAS})

  vocab: int | None = 32_000  # type: ignore[assignment]
  scale: float = 1.0
  power: float = 0.0
  types: int = 0
  tasks: int = 0
  rows: Norm | None = None
  norm: Norm | None = None
  early_norm: bool = False
  dropout: float = 0.0
  dim: int | None = None
  back: bool = False
  query: bool = False
  mask_token: int | None = None

  def make(self, dims):
    return _Tokens(self, dims)

  @property
  def causal(self):
    return self.mask_token is None  # mask tokens are counted in the whole document

  def shapes(self, batch, length):
    return {'input_ids': jax.ShapeDtypeStruct((batch, length), jnp.int32)}

  @property
  def width(self):
    return None if self.back else self.dim

  @property
  def projects(self) -> bool:
    """Whether a projection to d_model follows the table."""
    return self.dim is not None

  @property
  def early(self) -> bool:
    """Whether that projection is applied before positions are added."""
    return self.back

  @property
  def beside(self) -> int:
    """Number of concatenated embeddings per token that are projected."""
    return 1

  @property
  def d_out(self):
    return self.dim if self.back else None

  @property
  def shares(self):
    return self.vocab is None

  @property
  def token_embed(self):
    return self

  def resolved(self, of):
    return dataclasses.replace(self, vocab=of.vocab) if self.vocab is None else self

  def flops(self, d_model):
    return 0.0 if self.dim is None else 2 * (1 + self.back) * self.dim * d_model

  def check(self) -> Iterator[str]:
    if self.vocab is not None and self.vocab < 1:
      yield (
        f'vocab={self.vocab} is not a size. '
        'Expected at least 1, or none to share the table of the model.'
      )
    if self.back and self.dim is None:
      yield 'back=true needs dim, the width of the table. Expected dim=..., or back=false.'
    if self.early_norm and self.norm is None:
      yield 'early_norm=true needs a norm, and norm=none. Expected norm=..., or early_norm=false.'
    if self.mask_token is not None:
      vocab = self.vocab or self.mask_token + 1
      if not 0 <= self.mask_token < vocab:
        yield (
          f'mask_token={self.mask_token} is not a token id. '
          f'Expected 0 to {max(vocab - 1, 0)}, or none.'
        )
    if self.dim is not None and self.dim < 1:
      yield f'dim={self.dim} is not a width. Expected at least 1, or none for d_model.'

  def check_inputs(self, given, name_of, limit):
    ids, name = given['input_ids'], name_of('input_ids')
    if ids.ndim != 2:
      raise errors.UserError(f'apply: {name} has shape {ids.shape}. Expected [B, T].')
    B, T = ids.shape
    for other, value in given.items():
      shape = (B, *value.shape[1:2]) if other == 'target_positions' else (B, T)
      if value.shape != shape:
        raise errors.UserError(
          f'apply: {name_of(other)} has shape {value.shape}. Expected {shape}, as {name} has shape '
          f'{ids.shape}.'
        )
    if {'attention_mask', 'segment_ids'} <= set(given):
      raise errors.UserError(
        f'apply: {name_of("attention_mask")} and {name_of("segment_ids")} are both given. '
        'Expected only one; in segment ids, 0 is padding.'
      )
    ids_in_range.check(name, ids, self.vocab, 'token ids')
    if 'token_type_ids' in given and self.types:
      ids_in_range.check(
        name_of('token_type_ids'), given['token_type_ids'], self.types, 'token types'
      )
    if limit is not None and 'position_ids' in given:
      ids_in_range.check(name_of('position_ids'), given['position_ids'], limit, 'positions')
    if limit is not None and limit < T:
      raise errors.UserError(
        f'apply: {name} has {T} tokens, the position table has {limit} entries. '
        f'Expected at most {limit} tokens.'
      )

  def info(self, inputs, shape):
    return sequence_info({n: v for n, v in inputs.items() if n != 'position_ids'}, shape)


def entries(table_VD: jax.Array, tok_BT: jax.Array, width: str, dtype: jnp.dtype) -> jax.Array:
  """Return the table entries of tokens.

  Devices that split the width look up their columns for the tokens of all of them, and exchange the
  results for whole entries. So no device gathers the table or a gradient of its size.

  Args:
    table_VD: the token table.
    tok_BT: token ids.
    width: the axis letter of the width, 'D' or 'R'.
    dtype: the dtype of the result.

  Returns:
    The entries `[B, T, D]`.
  """
  columns, *batch = mesh_axes(f'{width}BT', (table_VD.shape[1], *tok_BT.shape))
  if not columns:
    return jnp.take(table_VD, tok_BT, axis=0).astype(dtype)
  place = lambda x, *axes: jax.lax.with_sharding_constraint(x, jax.P(*axes))
  x_BTD = jnp.take(table_VD, place(tok_BT, *batch), axis=0).astype(dtype)
  return constrained(place(x_BTD, *batch, columns), 'BT-')


class _Tokens(Module):
  spec: Tokens
  dims: Dims

  def setup(self):
    s, d = self.spec, self.dims.foot
    dtype, width = d.run.precision.dtype('param'), 'D' if s.dim is None else 'R'
    R = s.dim or d.d_model
    assert s.vocab is not None
    shape = (s.vocab, R)
    init = sharded(d.init.weight('embed', *shape, d), f'V{width}')
    self.table_VD = weight(self, 'table', init, shape, dtype)
    width = 'D' if s.early else width
    if s.types:
      shape = (s.types, d.d_model)
      init = sharded(d.init.weight('types', *shape, d), f'Y{width}')
      self.types_YD = self.param('types', init, shape, dtype)
    if s.tasks:
      shape = (s.tasks, d.d_model)
      init = sharded(d.init.weight('types', *shape, d), f'Y{width}')
      self.tasks_YD = self.param('tasks', init, shape, dtype)
    if s.query:
      init = sharded(d.init.weight('types', 1, d.d_model, d), width)
      self.query_R = self.param('query', init, (d.d_model,), dtype)
    self.norm = s.norm.make(d, width) if s.norm is not None else None
    D = self.dims.d_model
    self.project = (
      Dense('RD', (R * s.beside, D), self.dims, bias=not s.back) if s.projects else None
    )
    self.back = Dense('DR', (D, R), self.dims) if s.back else None
    self.rows = s.rows.make(d.replace(d_model=R)) if s.rows is not None else None

  def __call__(self, inputs, outputs):
    return self.project_out(self.finish(self.start(inputs, outputs, None).x_BTD, False))

  def start(self, inputs, outputs, next_B) -> Embedded:
    """Return the embeddings of the tokens, before positions are added."""
    ids_BT, type_BT = inputs['input_ids'], inputs.get('token_type_ids')
    info = self.spec.info(inputs, (ids_BT.shape[0], ids_BT.shape[1]))
    if next_B is not None:
      info = info.at(info.positions + next_B[:, None])
    if 'position_ids' in inputs:
      info = info.at(inputs['position_ids'].astype(jnp.int32))
    prefix_BT = inputs['prefix_mask'] != 0 if 'prefix_mask' in inputs else None
    if prefix_BT is None and next_B is not None:
      prefix_BT = jnp.zeros(ids_BT.shape, bool)
    global_BT = inputs['global_attention_mask'] != 0 if 'global_attention_mask' in inputs else None
    language_BT = inputs['lang_ids'].astype(jnp.int32) if 'lang_ids' in inputs else None
    info = info.with_extras(
      prefix=prefix_BT, type=type_BT, language=language_BT, **{'global': global_BT}
    )
    x_BTD = self.lookup(ids_BT, type_BT, inputs.get('task_type_ids'), info.segment_ids)
    if self.spec.early_norm and self.norm is not None:
      x_BTD = self.norm(x_BTD)
    start = Embedded(x_BTD, info, ordered='position_ids' not in inputs)
    return targets.add_targets(start, inputs, self.queries)

  def lookup(
    self,
    tok_BT: jax.Array,
    type_BT: jax.Array | None,
    task_BT: jax.Array | None = None,
    segment_BT: jax.Array | None = None,
  ) -> jax.Array:
    """Return the embeddings x_BTD in the compute dtype.

    Args:
      tok_BT: token ids.
      type_BT: token types; None: 0.
      task_BT: task types; None: 0.
      segment_BT: document of each token; None: one document per sequence.

    Returns:
      The sum of the embeddings, `[B, T, D]`.
    """
    s, dtype = self.spec, self.dims.run.precision.dtype('compute')
    table_VD = self.table_VD
    if isinstance(table_VD, Stored):
      x_BTD = table_VD.rows(tok_BT, dtype)
    else:
      x_BTD = entries(table_VD, tok_BT, 'D' if s.dim is None else 'R', dtype)
    if self.rows is not None:
      x_BTD = self.rows(x_BTD)
    if s.scale != 1 or s.power:
      x_BTD = x_BTD * jnp.asarray(s.scale * self.dims.d_model**s.power, dtype)
    if s.mask_token is not None:
      segment_BT = jnp.ones_like(tok_BT) if segment_BT is None else segment_BT
      x_BTD = x_BTD * _rescale(tok_BT == s.mask_token, segment_BT).astype(dtype)[..., None]
    if s.early and self.project is not None:
      x_BTD = self.project(self.joined(x_BTD, segment_BT))
    if s.types:
      type_BT = jnp.zeros_like(tok_BT) if type_BT is None else type_BT
      x_BTD = x_BTD + jnp.take(self.types_YD, type_BT, axis=0).astype(dtype)
    if s.tasks:
      task_BT = jnp.zeros_like(tok_BT) if task_BT is None else task_BT
      x_BTD = x_BTD + jnp.take(self.tasks_YD, task_BT, axis=0).astype(dtype)
    return x_BTD

  def joined(self, x_BTD: jax.Array, segment_BT: jax.Array | None) -> jax.Array:
    """Return the input of an early projection to d_model."""
    return x_BTD

  def queries(self, type_BP: jax.Array) -> jax.Array:
    """Return the vectors x_BPD of targets: `query`, plus the embedding of their type."""
    s, dtype = self.spec, self.dims.run.precision.dtype('compute')
    query_R = self.query_R.astype(dtype)
    x_BPD = jnp.broadcast_to(query_R[None, None], (*type_BP.shape, *query_R.shape))
    if s.types:
      x_BPD = x_BPD + jnp.take(self.types_YD, type_BP, axis=0).astype(dtype)
    return x_BPD

  def finish(self, x_BTD: jax.Array, train: bool) -> jax.Array:
    """Apply norm and dropout, and project to d_model."""
    if self.norm is not None and not self.spec.early_norm:
      x_BTD = self.norm(x_BTD)
    x_BTD = drop(x_BTD, self.spec.dropout, train, self)
    if self.project is not None and not self.spec.early:
      x_BTD = self.project(x_BTD)
    return constrained(x_BTD, 'BTD')

  def project_out(self, x_BTD: jax.Array) -> jax.Array:
    """Project the last hidden state to the width of the table, if `back`."""
    return x_BTD if self.back is None else self.back(x_BTD)

  def tied_table(self) -> jax.Array | Stored:
    """Return the table for a tied head, in the compute dtype."""
    if isinstance(self.table_VD, Stored):
      return self.table_VD
    table_VD = self.table_VD.astype(self.dims.run.precision.dtype('compute'))
    return table_VD if self.rows is None else self.rows(table_VD)


def _rescale(mask_BT: jax.Array, segment_BT: jax.Array) -> jax.Array:
  """Return the factor of each embedding: 0 at mask tokens, elsewhere 0.88 / (1 - share).

  `share` is the share of mask tokens in the document.
  """
  same_BTS = segment_BT[:, :, None] == segment_BT[:, None, :]
  length_BT = jnp.sum(same_BTS, -1)
  masked_BT = jnp.sum(same_BTS & mask_BT[:, None, :], -1)
  # If a document has mask tokens only, all its embeddings are 0 anyway.
  kept_BT = jnp.maximum(1 - masked_BT / length_BT, 1e-6)
  return jnp.where(mask_BT, 0.0, (1 - 0.15 * 0.8) / kept_BT)
