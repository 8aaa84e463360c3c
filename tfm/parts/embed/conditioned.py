"""Conditioning on a timestep, a class and pooled vectors."""

from collections.abc import Iterator
import dataclasses
import math

import jax
import jax.numpy as jnp

from tfm.core.axes import sharded
from tfm.core.module import Module
from tfm.parts.act.base import Act
from tfm.parts.act.sigmoid import Swish
from tfm.parts.context import Dims
from tfm.parts.dense import Dense
from tfm.parts.embed.base import Embed, Embedded, check_shape
from tfm.parts.embed.features import Features


@dataclasses.dataclass(frozen=True)
class Conditioned(Embed):
  """Input layer with a condition per example for norms and gates (DiT, arXiv:2212.09748).

  The condition is the sum of W2 act(W1 waves(scale timestep)), E[class label] and V2 act(V1
  pooled). Blocks use it with `norm=adaptive` and `residual_scale=gate`.

  Inputs: the inputs of `of`, and for each term of the sum one more: `timestep`, `[B]`, int or
  float; `class_labels`, int32 `[B]`; `pooled_projections`, float `[B, pooled]`.

  Attributes:
    of: the input layer of the sequence.
    waves: number of cosines and sines of the timestep; 0 for no timestep.
    scale: factor of the timestep. Flow matching, with times from 0 to 1, uses 1000.
    classes: number of class labels; 0 for no labels.
    class_dropout: share of training examples with their label replaced by `classes`, an extra table
      entry (classifier-free guidance). If it is not 0, that id is also a valid input.
    pooled: width of the pooled vectors of another model; 0 for none.
    act: activation of the two-layer networks.
  """

  of: Embed = Features()
  waves: int = 256
  scale: float = 1.0
  classes: int = 0
  class_dropout: float = 0.0
  pooled: int = 0
  act: Act = Swish()

  def make(self, dims):
    return _Conditioned(self, dims)

  @property
  def needs(self):  # type: ignore[override]
    return (*self.of.needs, *self.vectors(1))

  @property
  def takes(self):  # type: ignore[override]
    return self.of.takes

  @property
  def provides(self):  # type: ignore[override]
    return self.of.provides

  def vectors(self, batch: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Return the shapes of the inputs of the condition."""
    shapes = {
      'timestep': (self.waves, jax.ShapeDtypeStruct((batch,), jnp.float32)),
      'class_labels': (self.classes, jax.ShapeDtypeStruct((batch,), jnp.int32)),
      'pooled_projections': (self.pooled, jax.ShapeDtypeStruct((batch, self.pooled), jnp.float32)),
    }
    return {name: shape for name, (size, shape) in shapes.items() if size}

  def shapes(self, batch, length):
    return self.of.shapes(batch, length) | self.vectors(batch)

  def example(self, key, batch, length):
    return super().example(key, batch, length) | self.of.example(key, batch, length)

  def tokens(self, length):
    return self.of.tokens(length)

  @property
  def conditions(self):
    return True

  @property
  def towers(self):
    return self.of.towers

  @property
  def optional(self):
    return self.of.optional

  @property
  def streams(self):
    return self.of.streams

  @property
  def token_embed(self):
    return self.of.token_embed

  @property
  def width(self):
    return self.of.width

  @property
  def d_out(self):
    return self.of.d_out

  @property
  def vocab(self):
    return self.of.vocab or 0

  def flops(self, d_model):
    return self.of.flops(d_model)

  def read_flops(self, d_model, width):
    return self.of.read_flops(d_model, width)

  def check(self) -> Iterator[str]:
    if min(self.waves, self.classes, self.pooled) < 0 or self.waves % 2:
      yield (
        f'waves={self.waves}, classes={self.classes}, pooled={self.pooled}: not valid sizes. '
        'Expected at least 0 each, and an even number of waves.'
      )
    if not (self.waves or self.classes or self.pooled):
      yield (
        'waves, classes and pooled are all 0, so there is no condition. '
        'Expected at least one positive size.'
      )
    if not 0 <= self.class_dropout < 1:
      yield f'class_dropout={self.class_dropout} is not a share. Expected at least 0 and below 1.'
    elif self.class_dropout and not self.classes:
      yield f'class_dropout={self.class_dropout} without classes. Expected class_dropout=0.'
    if self.of.shares:
      yield 'of.vocab=none shares a table, and there is none. Expected the number of token ids.'
    if self.of.conditions:
      yield 'of: is conditioned itself. Expected one input layer with all conditions.'

  def fits(self, d_model):
    yield from (f'of: {message}' for message in self.of.fits(d_model))

  def check_inputs(self, given, name_of, limit):
    sequence = {name: given[name] for name in (*self.of.needs, *self.of.takes) if name in given}
    self.of.check_inputs(sequence, name_of, limit)
    batch = {given[name].shape[0] for name in self.of.needs}
    for name, like in self.vectors(1).items():
      sizes = {'B': min(batch)} if batch else {}
      if len(like.shape) == 2:
        sizes['R'] = self.pooled
      check_shape(name_of(name), given[name], 'BR'[: len(like.shape)], sizes)

  def info(self, inputs, shape):
    return self.of.info(inputs, shape)


class _Conditioned(Module):
  spec: Conditioned
  dims: Dims

  def setup(self):
    s, d = self.spec, self.dims
    D = d.d_model
    self.of = s.of.make(d)
    layer = lambda R: Dense('RD', (R, D), d, bias=True)
    second = lambda: Dense('DD', (D, D), d, bias=True)
    if s.waves:
      self.time_in, self.time_out = layer(s.waves), second()
    if s.pooled:
      self.pooled_in, self.pooled_out = layer(s.pooled), second()
    if s.classes:
      shape = (s.classes + (s.class_dropout > 0), D)
      init = sharded(d.init.weight('types', *shape, d), 'YD')
      self.classes_YD = self.param('classes', init, shape, d.run.precision.dtype('param'))

  def __call__(self, inputs, outputs):
    self.condition(inputs)
    return self.project_out(self.finish(self.start(inputs, outputs, None).x_BTD, False))

  def start(self, inputs, outputs, next_B) -> Embedded:
    """Return the sequence with the condition."""
    return self.of.start(inputs, outputs, next_B)._replace(cond_BD=self.condition(inputs))

  def condition(self, inputs) -> jax.Array:
    """Return the condition of each example, in the compute dtype."""
    s, dtype = self.spec, self.dims.run.precision.dtype('compute')
    terms = []
    if s.waves:
      wave_BR = waves(inputs['timestep'].astype(jnp.float32) * s.scale, s.waves)
      terms.append(self.time_out(s.act(self.time_in(wave_BR.astype(dtype)))))
    if s.classes:
      label_B = inputs['class_labels']
      if s.class_dropout and self.has_rng('dropout'):
        dropped_B = jax.random.bernoulli(self.make_rng('dropout'), s.class_dropout, label_B.shape)
        label_B = jnp.where(dropped_B, s.classes, label_B)
      terms.append(jnp.take(self.classes_YD, label_B, axis=0).astype(dtype))
    if s.pooled:
      pooled_BR = inputs['pooled_projections'].astype(dtype)
      terms.append(self.pooled_out(s.act(self.pooled_in(pooled_BR))))
    return sum(terms[1:], terms[0])

  def finish(self, x_BTD: jax.Array, train: bool) -> jax.Array:
    """Apply norm and dropout of the sequence's input layer."""
    return self.of.finish(x_BTD, train)

  def project_out(self, x_BTD: jax.Array) -> jax.Array:
    """Apply the output projection of the sequence's input layer, if it has one."""
    return self.of.project_out(x_BTD)

  def tied_table(self):
    """Return the token table for a tied head."""
    return self.of.tied_table()


def waves(time_B: jax.Array, size: int) -> jax.Array:
  """Return `[B, size]`: cosines, then sines, at frequencies from 1 to almost 1 / 10000."""
  half = size // 2
  frequency_h = jnp.exp(-math.log(10_000) * jnp.arange(half, dtype=jnp.float32) / half)
  angle_Bh = time_B[:, None] * frequency_h[None]
  return jnp.concatenate([jnp.cos(angle_Bh), jnp.sin(angle_Bh)], -1)
