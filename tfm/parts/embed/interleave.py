"""Interleaved sequences, such as returns, states and actions."""

from collections.abc import Iterator
import dataclasses

import jax
import jax.numpy as jnp

from tfm.core import errors
from tfm.core.axes import constrained
from tfm.core.module import Module
from tfm.parts.context import Dims
from tfm.parts.dropout import drop
from tfm.parts.embed.base import Embed, Embedded, check_shape, sequence_info
from tfm.parts.embed.features import Features, time_table
from tfm.parts.norm.base import Norm
from tfm.parts.norm.layer import LayerNorm

#: Reserved names, which are attributes of the module.
_RESERVED = ('norm', 'timesteps', 'spec', 'dims', 'parent', 'name', 'scope')


@dataclasses.dataclass(frozen=True)
class Stream:
  """One of several interleaved sequences.

  Attributes:
    name: name of the stream, used by `head.stream` and for its parameters.
    embed: its input layer, with one token per step.
  """

  name: str
  embed: Embed


@dataclasses.dataclass(frozen=True)
class Interleave(Embed):
  """Interleaved streams, [a_1, b_1, c_1, a_2, ...] (Decision Transformer, arXiv:2106.01345).

  The embedding E_time[timestep] of each step is added, then norm and dropout are applied.

  Inputs: the inputs of all streams, each with T steps; `timesteps`, int32 `[B, T]`, if there is a
  table for them; optionally `attention_mask`, int32 `[B, T]` (0: padding). The sequence has T
  tokens of each stream, and positions count all of them. The extra 'stream' of the token info is
  the index of the stream.

  A cached call takes whole steps. To choose an action, pass zeros as the unknown action. At the
  next step, go back by one step with `tfm.model.cache.rewind` and pass the action that was taken.

  Attributes:
    parts: the streams, in order.
    timesteps: entries of the table of time steps, shared by all streams; 0 for none.
    norm, dropout: applied after time steps and positions are added.
  """

  parts: tuple[Stream, ...] = (
    Stream('returns', Features('returns_to_go', 1)),
    Stream('states', Features('states', 17)),
    Stream('actions', Features('actions', 6)),
  )
  timesteps: int = 4096
  norm: Norm | None = LayerNorm()
  dropout: float = 0.0

  def make(self, dims):
    return _Interleave(self, dims)

  @property
  def needs(self):  # type: ignore[override]
    names = dict.fromkeys(name for part in self.parts for name in part.embed.needs)
    return (*names, 'timesteps') if self.timesteps else tuple(names)

  @property
  def takes(self):  # type: ignore[override]
    return ('attention_mask',)

  @property
  def provides(self):  # type: ignore[override]
    return frozenset({'stream'})

  @property
  def streams(self):
    return tuple(part.name for part in self.parts)

  @property
  def towers(self):
    return tuple(tower for part in self.parts for tower in part.embed.towers)

  def shapes(self, batch, length):
    steps = length // len(self.parts)
    shapes: dict[str, jax.ShapeDtypeStruct] = {}
    for part in self.parts:
      shapes |= part.embed.shapes(batch, steps)
    if self.timesteps:
      shapes['timesteps'] = jax.ShapeDtypeStruct((batch, steps), jnp.int32)
    return shapes

  def tokens(self, length):
    return length // len(self.parts) * len(self.parts)

  def flops(self, d_model):
    return sum(part.embed.flops(d_model) for part in self.parts) / len(self.parts)

  def check(self) -> Iterator[str]:
    if not self.parts:
      yield 'parts is empty. Expected at least one stream.'
    if self.timesteps < 0:
      yield f'timesteps={self.timesteps} is negative. Expected at least 0.'
    for i, part in enumerate(self.parts):
      valid = part.name.isidentifier() and part.name not in _RESERVED
      if not valid or self.streams.count(part.name) > 1:
        yield (
          f'parts.{i}.name: {part.name!r} is not an identifier, or reserved, or used twice. '
          'Expected a unique name, such as states.'
        )
      if part.embed.shares or part.embed.d_out is not None or part.embed.width is not None:
        yield (
          f'parts.{i}.embed: shares a token table, or has another width than the tower. '
          'Expected vectors of the width of the tower.'
        )
    names = [name for part in self.parts for name in part.embed.needs]
    if repeated := sorted({n for n in names if names.count(n) > 1}):
      yield f'parts: two streams use the input {repeated[0]!r}. Expected an input for each stream.'

  def fits(self, d_model):
    for i, part in enumerate(self.parts):
      yield from (f'parts.{i}.embed: {message}' for message in part.embed.fits(d_model))

  def check_inputs(self, given, name_of, limit):
    steps: dict[str, tuple[int, int]] = {}
    for part in self.parts:
      inputs = {name: given[name] for name in part.embed.needs}
      part.embed.check_inputs(inputs, name_of, None)
      steps |= {name: (value.shape[0], value.shape[1]) for name, value in inputs.items()}
    first, shape = next(iter(steps.items()))
    for name, other in steps.items():
      if other != shape:
        raise errors.UserError(
          f'apply: {name_of(name)} has {other[0]} examples of {other[1]} steps, and '
          f'{name_of(first)} has {shape[0]} of {shape[1]}. '
          f'Expected equal numbers in {", ".join(map(name_of, steps))}.'
        )
    for name in ('timesteps', 'attention_mask'):
      if name in given:
        check_shape(name_of(name), given[name], 'BT', {'B': shape[0], 'T': shape[1]})
    if limit is not None and limit < (T := shape[1] * len(self.parts)):
      raise errors.UserError(
        f'apply: {shape[1]} steps of {len(self.parts)} streams are {T} tokens, the position table '
        f'has {limit} entries. Expected at most {limit // len(self.parts)} steps.'
      )

  def info(self, inputs, shape):
    repeated = {}
    if 'attention_mask' in inputs:
      repeated['attention_mask'] = jnp.repeat(inputs['attention_mask'], len(self.parts), axis=1)
    info = sequence_info(repeated, shape)
    stream_T = jnp.arange(shape[1], dtype=jnp.int32) % len(self.parts)
    return info.with_extras(stream=jnp.broadcast_to(stream_T[None], shape))


class _Interleave(Module):
  spec: Interleave
  dims: Dims

  def setup(self):
    s, d = self.spec, self.dims
    for part in s.parts:  # the names of attributes become the names of the parameters
      setattr(self, part.name, part.embed.make(d))
    self.times_PD = time_table(self, s.timesteps) if s.timesteps else None
    self.norm = s.norm.make(d) if s.norm is not None else None

  def __call__(self, inputs, outputs):
    return self.finish(self.start(inputs, outputs, None).x_BTD, False)

  def start(self, inputs, outputs, next_B) -> Embedded:
    """Return the embeddings of the streams in turn, with time steps added."""
    s, dtype, train = self.spec, self.dims.run.precision.dtype('compute'), self.has_rng('dropout')
    streams = []
    for part in s.parts:
      module = getattr(self, part.name)
      stream_inputs = {name: inputs[name] for name in part.embed.needs}
      streams.append(module.finish(module.start(stream_inputs, outputs, None).x_BTD, train))
    if self.times_PD is not None:
      time_BTD = jnp.take(self.times_PD, inputs['timesteps'], axis=0).astype(dtype)
      streams = [x_BTD + time_BTD for x_BTD in streams]
    B, T, D = streams[0].shape
    x_BTD = jnp.stack(streams, 2).reshape(B, T * len(streams), D)
    info = s.info(inputs, (B, T * len(streams)))
    return Embedded(x_BTD, info if next_B is None else info.at(info.positions + next_B[:, None]))

  def finish(self, x_BTD: jax.Array, train: bool) -> jax.Array:
    """Apply norm and dropout."""
    x_BTD = x_BTD if self.norm is None else self.norm(x_BTD)
    return constrained(drop(x_BTD, self.spec.dropout, train, self), 'BTD')

  def project_out(self, x_BTD: jax.Array) -> jax.Array:
    """Return the last hidden state unchanged."""
    return x_BTD
