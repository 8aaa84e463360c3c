"""A timestep, a class and pooled vectors as a condition for norms and gates (DiT,
arXiv:2212.09748).
"""

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
  """The sequence of another input layer, and a vector per example for parts that are `conditioned`.

  The vector is the sum of W2 act(W1 waves(scale * timestep)), E[class label], and V2 act(V1
  pooled). Blocks use it by `norm=adaptive` and `residual_scale=gate`.

  Inputs: the inputs of `of`, and for each term of the sum its own: `timestep`, `[B]`, int or float;
  `class_labels`, int32 `[B]`; `pooled_projections`, float `[B, pooled]`.

  Attributes: of: the input layer of the sequence. waves: number of cosines and sines of the
    timestep; 0 for no timestep. scale: factor of the timestep (flow matching, whose time runs from
    0 to 1: 1000). classes: number of class labels; 0 for no labels. class_dropout: share of
    examples in training whose label is replaced by `classes`, an extra row of the table
      (classifier-free guidance). That id may be given, too, if the share is not 0.
    pooled: width of the pooled vectors of another model, 0 for none.
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
    """Return the shapes of the inputs that make the condition."""
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
        f'waves={self.waves}, classes={self.classes}, pooled={self.pooled} are not sizes. '
        'Expected at least 0, and an even number of waves.'
      )
    if not (self.waves or self.classes or self.pooled):
      yield 'waves, classes and pooled are all 0, so there is no condition. Expected a positive one.'
    if not 0 <= self.class_dropout < 1 or (self.class_dropout and not self.classes):
      yield f'class_dropout={self.class_dropout} of classes={self.classes}. Expected a share below 1, and classes.'
    if self.of.shares:
      yield 'of.vocab=none shares a table, and there is none. Expected the number of token ids.'
    if self.of.conditions:
      yield 'of: is conditioned itself. Expected one condition with all inputs.'

  def fits(self, d_model):
    yield from (f'of: {message}' for message in self.of.fits(d_model))

  def check_inputs(self, given, name_of, limit):
    sequence = {name: given[name] for name in (*self.of.needs, *self.of.takes) if name in given}
    self.of.check_inputs(sequence, name_of, limit)
    batch = {given[name].shape[0] for name in self.of.needs}
    for name, shape in self.vectors(1).items():
      sizes = {'R': self.pooled} | ({'B': min(batch)} if batch else {})
      check_shape(name_of(name), given[name], 'BR'[: len(shape.shape)], sizes)

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
    return self.leave(self.finish(self.start(inputs, outputs, None).x_BTD, False))

  def start(self, inputs, outputs, next_B) -> Embedded:
    """Return the sequence with the condition."""
    return self.of.start(inputs, outputs, next_B)._replace(cond_BD=self.condition(inputs))

  def condition(self, inputs) -> jax.Array:
    """Return the vector of each example, in the compute dtype."""
    s, dtype = self.spec, self.dims.run.precision.dtype('compute')
    found = []
    if s.waves:
      wave_BR = waves(inputs['timestep'].astype(jnp.float32) * s.scale, s.waves)
      found.append(self.time_out(s.act(self.time_in(wave_BR.astype(dtype)))))
    if s.classes:
      label_B = inputs['class_labels']
      if s.class_dropout and self.has_rng('dropout'):
        dropped_B = jax.random.bernoulli(self.make_rng('dropout'), s.class_dropout, label_B.shape)
        label_B = jnp.where(dropped_B, s.classes, label_B)
      found.append(jnp.take(self.classes_YD, label_B, axis=0).astype(dtype))
    if s.pooled:
      found.append(
        self.pooled_out(s.act(self.pooled_in(inputs['pooled_projections'].astype(dtype))))
      )
    return sum(found[1:], found[0])

  def finish(self, x_BTD: jax.Array, train: bool) -> jax.Array:
    """Apply what follows the absolute positions."""
    return self.of.finish(x_BTD, train)

  def leave(self, x_BTD: jax.Array) -> jax.Array:
    """Apply the projection of the last hidden state, if the sequence's input layer has one."""
    return self.of.leave(x_BTD)

  def words(self):
    """Return the token table as a tied head uses it."""
    return self.of.words()


def waves(time_B: jax.Array, size: int) -> jax.Array:
  """Return `[B, size]`: cosines, then sines, of times at frequencies from 1 to almost 1 / 10000."""
  half = size // 2
  frequency_h = jnp.exp(-math.log(10_000) * jnp.arange(half, dtype=jnp.float32) / half)
  angle_Bh = time_B[:, None] * frequency_h[None]
  return jnp.concatenate([jnp.cos(angle_Bh), jnp.sin(angle_Bh)], -1)
