"""Precomputed vectors, such as states, actions or features of a frozen encoder."""

from collections.abc import Iterator
import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from tfm.core import errors
from tfm.core.axes import constrained, sharded
from tfm.core.module import Module
from tfm.parts.context import Dims
from tfm.parts.dense import Dense
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
from tfm.parts.tokeninfo import with_grid


@dataclasses.dataclass(frozen=True)
class Features(Embed):
  """Linear projection of given vectors, x W + b + E_time[timestep].

  Time steps are embedded as in the Decision Transformer (arXiv:2106.01345).

  Inputs: the vectors x, float `[B, T, size]`, under the name `input`; `timesteps`, int32 `[B, T]`,
  if there is a table for them; optionally `attention_mask` or `segment_ids`, and `position_ids`,
  int32 `[B, T]`.

  Attributes:
    input: name of the input, such as states, actions or inputs_embeds.
    size: width of a vector.
    project: use a projection; without one, `size` is the width of the tower.
    bias: add b.
    timesteps: entries of the table of time steps; 0 for none.
    grid: (rows, columns) if the vectors are patches of an image, row by row, else None.
    norm, dropout: applied after positions are added.
  """

  takes: ClassVar = SEQUENCE

  input: str = 'inputs_embeds'
  size: int = 64
  project: bool = True
  bias: bool = True
  timesteps: int = 0
  grid: tuple[int, int] | None = None
  norm: Norm | None = None
  dropout: float = 0.0

  def make(self, dims):
    return _Features(self, dims)

  @property
  def needs(self):  # type: ignore[override]
    return (self.input, 'timesteps') if self.timesteps else (self.input,)

  @property
  def provides(self):  # type: ignore[override]
    return frozenset() if self.grid is None else frozenset({'grid'})

  def shapes(self, batch, length):
    T = self.tokens(length)
    shapes = {self.input: jax.ShapeDtypeStruct((batch, T, self.size), jnp.float32)}
    if self.timesteps:
      shapes['timesteps'] = jax.ShapeDtypeStruct((batch, T), jnp.int32)
    return shapes

  def tokens(self, length):
    return length if self.grid is None else self.grid[0] * self.grid[1]

  def flops(self, d_model):
    return 2.0 * self.size * d_model if self.project else 0.0

  def check(self) -> Iterator[str]:
    if self.size < 1 or self.timesteps < 0:
      yield (
        f'size={self.size}, timesteps={self.timesteps} are not valid sizes. '
        'Expected size of at least 1, and timesteps of at least 0.'
      )
    if not self.input.isidentifier() or self.input in (*SEQUENCE, 'timesteps'):
      yield (
        f'input={self.input!r} is not a valid name of an input. '
        'Expected an identifier such as states or inputs_embeds.'
      )
    if self.grid is not None and min(self.grid) < 1:
      yield f'grid={self.grid} must be positive. Expected at least 1 row and 1 column, or none.'

  def fits(self, d_model):
    if not self.project and self.size != d_model:
      yield f'size={self.size} is not d_model={d_model}. Expected equal widths, or project=true.'

  def check_inputs(self, given, name_of, limit):
    vectors, name = given[self.input], name_of(self.input)
    check_shape(name, vectors, 'BTR', {'R': self.size})
    shape = vectors.shape[:2]
    if self.timesteps:
      check_shape(name_of('timesteps'), given['timesteps'], 'BT', {'B': shape[0], 'T': shape[1]})
    check_sequence(given, name_of, self.input, shape, limit)
    if self.grid is not None and shape[1] != self.tokens(0):
      rows, columns = self.grid
      raise errors.UserError(
        f'apply: {name} has {shape[1]} vectors. Expected {rows * columns}, for a grid of {rows} x '
        f'{columns} patches.'
      )

  def info(self, inputs, shape):
    info = sequence_info(inputs, shape)
    return info if self.grid is None else with_grid(info, self.grid)


class _Features(Module):
  spec: Features
  dims: Dims

  def setup(self):
    s, d = self.spec, self.dims
    D = d.d_model
    self.project = Dense('RD', (s.size, D), d, bias=s.bias) if s.project else None
    self.times_PD = time_table(self, s.timesteps) if s.timesteps else None
    self.norm = s.norm.make(d) if s.norm is not None else None

  def __call__(self, inputs, outputs):
    return self.finish(self.start(inputs, outputs, None).x_BTD, False)

  def start(self, inputs, outputs, next_B) -> Embedded:
    """Return the projected vectors, with the embeddings of their time steps added."""
    del outputs
    s, dtype = self.spec, self.dims.run.precision.dtype('compute')
    x_BTR = inputs[s.input].astype(dtype)
    x_BTD = x_BTR if self.project is None else self.project(x_BTR)
    if self.times_PD is not None:
      x_BTD = x_BTD + jnp.take(self.times_PD, inputs['timesteps'], axis=0).astype(dtype)
    info = sequence_info(inputs, (x_BTD.shape[0], x_BTD.shape[1]), next_B)
    info = info if s.grid is None else with_grid(info, s.grid)
    return Embedded(x_BTD, info, ordered='position_ids' not in inputs, grid=s.grid)

  def finish(self, x_BTD: jax.Array, train: bool) -> jax.Array:
    """Apply norm and dropout."""
    x_BTD = x_BTD if self.norm is None else self.norm(x_BTD)
    return constrained(drop(x_BTD, self.spec.dropout, train, self), 'BTD')

  def project_out(self, x_BTD: jax.Array) -> jax.Array:
    """Return the last hidden state unchanged."""
    return x_BTD


def time_table(module: Module, entries: int) -> jax.Array:
  """Return the parameter `timesteps` of an input layer, a table `[entries, D]`.

  Time steps outside the table give NaN.
  """
  d = module.dims
  init = sharded(d.init.weight('positions', entries, d.d_model, d), 'PD')
  return module.param('timesteps', init, (entries, d.d_model), d.run.precision.dtype('param'))
