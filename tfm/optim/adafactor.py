"""Adafactor for stacked layers."""

from collections.abc import Iterator
import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from tfm.optim.base import Letters, Optim, check_decay
from tfm.optim.layout import layout
from tfm.optim.schedule import Rsqrt, Schedule


class Factors(NamedTuple):
  """The factored second moment of a stack of matrices.

  Attributes:
    rows: The mean of g^2 over the outputs, an entry for each input.
    cols: The mean of g^2 over the inputs, an entry for each output.
  """

  rows: jax.Array
  cols: jax.Array


class FactoredState(NamedTuple):
  """The state of Adafactor.

  Attributes:
    step: The number of updates.
    v: The second moment of each parameter in float32: an array, or `Factors`.
  """

  step: jax.Array
  v: Any


@dataclasses.dataclass(frozen=True)
class Adafactor(Optim):
  """Adafactor (arXiv:1804.04235) with T5's settings.

  The update is g / sqrt(v). The moving average v of g^2 is stored as rows x cols / mean(rows). If
  `relative`, `lr` is relative to the root mean square of each parameter, at least 1e-3. T5's
  schedule is a constant 0.01 for 10^4 updates, then the inverse square root.

  Attributes:
    power: The weight of the past in v at update s = 1, 2, ... is 1 - s^-power.
    eps: Added to g^2.
    threshold: The largest root mean square of an update, before `lr`. None for no limit.
    relative: Scale steps by the size of their parameter.
    min_size: Matrices with a shorter side than this are not factored.
    momentum: Decay of a moving average of the updates, which needs a copy of the parameters. None
      for no average.

  Note:
    Rows and columns are the inputs and outputs of a matrix, with heads folded. Factors and root
    mean squares are separate for each stacked layer and expert. `optax.adafactor` factors the two
    longest axes instead, which mixes the layers of a stack (L = 126 with heads of 64). On a single
    matrix both agree.
  """

  lr: float = 0.01
  schedule: Schedule = Rsqrt(warmup=0, hold=10_000)
  clip: float | None = None
  decay: float = 0.0
  power: float = 0.8
  eps: float = 1e-30
  threshold: float | None = 1.0
  relative: bool = True
  min_size: int = 128
  momentum: float | None = None

  def rule(self, letters: Letters) -> optax.GradientTransformation:
    links = [
      self._scale_by_factored_rms(letters),
      optax.stateless(lambda u, p: self._resized(u, p, letters)),
    ]
    if self.momentum is not None:
      links.append(optax.ema(self.momentum, debias=False, accumulator_dtype=jnp.float32))
    return optax.chain(*links)

  def sides(
    self, letters: str, shape: tuple[int, ...]
  ) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Return the axes of the inputs and of the outputs of a factored matrix, else None."""
    stack, groups = layout(letters)
    if len(groups) < 2:
      return None
    first, second = len(stack), len(stack) + len(groups[0])
    if min(math.prod(shape[first:second]), math.prod(shape[second:])) < self.min_size:
      return None
    return tuple(range(first, second)), tuple(range(second, len(shape)))

  def _scale_by_factored_rms(self, letters: Letters) -> optax.GradientTransformation:
    def zeros(letters: str, p: jax.Array) -> jax.Array | Factors:
      sides = self.sides(letters, p.shape)
      if sides is None:
        return jnp.zeros(p.shape, jnp.float32)

      def without(axes: tuple[int, ...]) -> jax.Array:
        return jnp.zeros([n for i, n in enumerate(p.shape) if i not in axes], jnp.float32)

      return Factors(without(sides[1]), without(sides[0]))

    def init(params: Any) -> FactoredState:
      return FactoredState(jnp.zeros([], jnp.int32), jax.tree.map(zeros, letters, params))

    def update(grads: Any, state: FactoredState, params: Any = None) -> tuple[Any, FactoredState]:
      del params
      past = 1 - (state.step + 1).astype(jnp.float32) ** -self.power
      mix = lambda old, new: past * old + (1 - past) * new

      def moment(letters: str, g: jax.Array, v: jax.Array | Factors) -> jax.Array | Factors:
        square = jnp.square(g.astype(jnp.float32)) + self.eps
        if not isinstance(v, Factors):
          return mix(v, square)
        inputs, outputs = self.sides(letters, g.shape) or ((), ())
        return Factors(mix(v.rows, square.mean(outputs)), mix(v.cols, square.mean(inputs)))

      def direction(letters: str, g: jax.Array, v: jax.Array | Factors) -> jax.Array:
        if not isinstance(v, Factors):
          return g * jax.lax.rsqrt(v)
        inputs, outputs = self.sides(letters, g.shape) or ((), ())
        rows, cols = jnp.expand_dims(v.rows, outputs), jnp.expand_dims(v.cols, inputs)
        return g * jax.lax.rsqrt(rows / rows.mean(inputs, keepdims=True)) * jax.lax.rsqrt(cols)

      v = jax.tree.map(moment, letters, grads, state.v)
      return jax.tree.map(direction, letters, grads, v), FactoredState(state.step + 1, v)

    return optax.GradientTransformation(init, update)

  def _resized(self, updates: Any, params: Any, letters: Letters) -> Any:
    """Limit updates by the threshold, and scale them by their parameter, for each layer."""

    def resize(letters: str, u: jax.Array, p: jax.Array) -> jax.Array:
      axes = tuple(range(len(layout(letters).stack), u.ndim))
      rms = lambda x: jnp.sqrt(jnp.mean(jnp.square(x.astype(jnp.float32)), axes, keepdims=True))
      factor = jnp.float32(1)
      if self.threshold is not None:
        factor = factor / jnp.maximum(1.0, rms(u) / self.threshold)
      return u * (factor * jnp.maximum(rms(p), 1e-3) if self.relative else factor)

    return jax.tree.map(resize, letters, updates, params)

  def check(self) -> Iterator[str]:
    yield from super().check()
    if self.momentum is not None:
      yield from check_decay('momentum', self.momentum)
    if self.threshold is not None and self.threshold <= 0:
      yield f'threshold: is {self.threshold}. Expected more than 0, or none.'
    for name in ('power', 'eps', 'min_size'):
      if getattr(self, name) <= 0:
        yield f'{name}: is {getattr(self, name)}. Expected more than 0.'
