"""Language-model head."""

import dataclasses
from typing import ClassVar

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.core.axes import sharded, trailing
from tfm.core.module import Module
from tfm.parts.act.base import Act
from tfm.parts.act.gelu import Gelu
from tfm.parts.context import Dims
from tfm.parts.contract import contract_table
from tfm.parts.dense import Dense
from tfm.parts.head.base import Head, HeadContext
from tfm.parts.head.factors import LogitFactors
from tfm.parts.norm.base import Norm
from tfm.parts.norm.layer import LayerNorm
from tfm.parts.stored import Stored


@dataclasses.dataclass(frozen=True)
class Transform:
  """Layer before a language-model head, norm(act(x W + b)) (BERT).

  Attributes:
    act: activation.
    norm: norm.
    bias: add b.
    dim: output width. None: the width of the token table. A head with another width has a separate
      weight (RemBERT, arXiv:2010.12821).
  """

  act: Act = Gelu()
  norm: Norm = LayerNorm(1e-12)
  bias: bool = True
  dim: int | None = None


@dataclasses.dataclass(frozen=True)
class Lm(Head):
  """Language-model head, cap(scale D^power (x U + b)), with U the token table if `tied`.

  Output: `logits` `[B, T, V]`, or their `LogitFactors` if the caller takes them. A head with an
  adapter, a rounded or a prepared weight always returns logits.

  Attributes:
    tied: use the token table of the tower, else a separate weight.
    bias: add b.
    scale, power: factors of the logits.
    cap: bound c of the logits, c tanh(logits / c) (Gemma 2).
    transform: a layer before the projection.
    name: name of the output. Default: `logits`.
  """

  decodes: ClassVar[bool] = True

  tied: bool = True
  bias: bool = False
  scale: float = 1.0
  power: float = 0.0
  cap: float | None = None
  transform: Transform | None = None

  def make(self, dims):
    return _Lm(self, dims)

  def returns(self, alone):
    del alone
    return (self.name or 'logits',)

  def transformed(self, dims: Dims) -> tuple[int, str]:
    """Return the width of the output of `transform`, and the letter of that axis."""
    dim = dims.d_table if self.transform is None else self.transform.dim or dims.d_table
    return (dim, 'R') if dim else (dims.d_model, 'D')

  def flops(self, dims, length):
    D, V = dims.d_model, dims.vocab
    if self.transform is None:
      return length * 2 * D * V
    R, _ = self.transformed(dims)
    return length * (2 * D * R + 2 * R * V)

  def fits(self, tower):
    if (e := tower.embed.token_embed) is None:
      yield 'lm needs a vocabulary, and the tower has no token ids. Expected embed=tokens.'
      return
    if e.d_out is not None and self.transform is not None:
      yield (
        'embed.back and lm.transform both project to the width of the table. '
        'Expected embed.back=false, or lm.transform=none.'
      )
    table = e.dim or tower.d_model
    if self.tied and self.transform is not None and self.transform.dim not in (None, table):
      yield (
        f'lm is tied to a table of width {table}, and lm.transform.dim is {self.transform.dim}. '
        'Expected lm.tied=false, or lm.transform.dim=none.'
      )
    if self.tied and self.transform is None and e.d_out is None and table != tower.d_model:
      yield (
        f'lm is tied to a table of width embed.dim={e.dim}, and hidden states have the width '
        f'd_model={tower.d_model}. '
        'Expected lm.transform, which projects to the width of the table, or lm.tied=false.'
      )


class _Lm(Module):
  spec: Lm
  dims: Dims

  @nn.compact
  def __call__(self, x_BTD: jax.Array, context: HeadContext) -> dict[str, jax.Array | LogitFactors]:
    s, d, V = self.spec, self.dims, self.dims.vocab
    dtype = d.run.precision.dtype('param')
    if s.transform is not None:
      R, letter = s.transformed(d)
      x_BTD = Dense(f'D{letter}', (d.d_model, R), d, bias=s.transform.bias, name='transform')(x_BTD)
      x_BTD = s.transform.norm.make(d, letter).copy(name='norm')(s.transform.act(x_BTD))
    factor = s.scale * d.d_model**s.power
    if factor != 1:
      x_BTD = x_BTD * jnp.asarray(factor, x_BTD.dtype)
    bias_V = None
    if s.bias:
      bias_V = self.param('bias', sharded(nn.initializers.zeros, 'V'), (V,), dtype)
      bias_V = (factor * bias_V).astype(x_BTD.dtype)
    if context.factored and (found := self.factors(x_BTD, context)) is not None:
      return {s.name or 'logits': dataclasses.replace(found, bias_V=bias_V, cap=s.cap)}
    logits_BTV = self.projected(x_BTD, context)
    if bias_V is not None:
      logits_BTV = logits_BTV + trailing(bias_V, 3)
    if s.cap is not None:
      logits_BTV = s.cap * jnp.tanh(logits_BTV / s.cap)
    return {s.name or 'logits': logits_BTV}

  def factors(self, x_BTD: jax.Array, context: HeadContext) -> LogitFactors | None:
    """Return the factors of x U, or None if x U is not one product with a plain weight."""
    if self.spec.tied:
      if isinstance(context.table, Stored):
        return None
      width = 'R' if self.dims.d_table else 'D'
      return LogitFactors(x_BTD, context.table.astype(x_BTD.dtype), letters=f'V{width}')
    kernel = self.variables['params']['head']['kernel']
    plain = not (self.dims.adapter.wraps('head') or self.dims.rounding.wraps('head'))
    if isinstance(kernel, Stored) or not plain:
      return None
    return LogitFactors(x_BTD, kernel.astype(x_BTD.dtype), letters='DV')

  def projected(self, x_BTD: jax.Array, context: HeadContext) -> jax.Array:
    """Return x U."""
    if not self.spec.tied:
      shape = (x_BTD.shape[-1], self.dims.vocab)
      return Dense('DV', shape, self.dims, name='head', role='head')(x_BTD)
    if isinstance(context.table, Stored):
      return context.table.contract(x_BTD)
    return contract_table(x_BTD, context.table)
