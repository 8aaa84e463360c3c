"""Adafactor, layer by layer."""

from collections.abc import Iterator
import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from tfm.optim.base import Letters, Optim, share
from tfm.optim.layout import layout
from tfm.optim.schedule import Rsqrt, Schedule


class Factors(NamedTuple):
  """Means of g^2 over the outputs (`rows`, an entry an input) and over the inputs (`cols`) of each
  stacked matrix.
  """

  rows: jax.Array
  cols: jax.Array


class FactoredState(NamedTuple):
  """`v`: the parameters' tree, with an array or its `Factors` for a leaf, in float32."""

  step: jax.Array
  v: Any


@dataclasses.dataclass(frozen=True)
class Adafactor(Optim):
  """g / sqrt(v), v the moving average of g^2 kept as rows x cols / mean(rows) (arXiv:1804.04235),
  with T5's settings.

  `lr` is relative to the root mean square of each parameter, at least 1e-3 (`relative`), and
  follows the schedule: T5's constant 0.01 for 10^4 updates, then the inverse square root.

  Differs: rows and columns are the inputs and outputs of a matrix, heads folded, and neither the
  factors nor the two root mean squares look across stacked layers or experts. `optax.adafactor`
  would factor the two longest axes, the stack among them, which for L = 126 layers of heads of 64
  mixes the layers. On one matrix the two agree."""

  lr: float = 0.01
  schedule: Schedule = Rsqrt(warmup=0, hold=10_000)
  clip: float | None = None
  decay: float = 0.0
  #: The weight of the past in v at update s = 1, 2, ... is 1 - s^-power.
  power: float = 0.8
  #: Added to g^2.
  eps: float = 1e-30
  #: The largest root mean square of an update, before `lr`; None leaves it alone.
  threshold: float | None = 1.0
  #: Whether a step is relative to the size of its parameter.
  relative: bool = True
  #: A matrix with a shorter side than this keeps all of v.
  min_size: int = 128
  #: Decay of a moving average of the updates, which costs a copy of the parameters; None keeps
  #: none.
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
    """The axes of the inputs and of the outputs of a matrix worth factoring, else None."""
    stack, groups = layout(letters)
    if len(groups) < 2:
      return None
    first, second = len(stack), len(stack) + len(groups[0])
    sides = tuple(range(first, second)), tuple(range(second, len(shape)))
    short = min(math.prod(shape[i] for i in side) for side in sides)
    return sides if short >= self.min_size else None

  def _scale_by_factored_rms(self, letters: Letters) -> optax.GradientTransformation:
    def zeros(letters: str, p: jax.Array) -> jax.Array | Factors:
      sides = self.sides(letters, p.shape)
      without = lambda axes: jnp.zeros(
        [n for i, n in enumerate(p.shape) if i not in axes], jnp.float32
      )
      return (
        jnp.zeros(p.shape, jnp.float32)
        if sides is None
        else Factors(without(sides[1]), without(sides[0]))
      )

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
    """Updates no larger than the threshold, then relative to their parameter, each layer by itself."""

    def one(letters: str, u: jax.Array, p: jax.Array) -> jax.Array:
      axes = tuple(range(len(layout(letters).stack), u.ndim))
      rms = lambda x: jnp.sqrt(jnp.mean(jnp.square(x.astype(jnp.float32)), axes, keepdims=True))
      factor = jnp.float32(1)
      if self.threshold is not None:
        factor = factor / jnp.maximum(1.0, rms(u) / self.threshold)
      return u * (factor * jnp.maximum(rms(p), 1e-3) if self.relative else factor)

    return jax.tree.map(one, letters, updates, params)

  def check(self) -> Iterator[str]:
    yield from super().check()
    if self.momentum is not None:
      yield from share('momentum', self.momentum)
    if self.threshold is not None and self.threshold <= 0:
      yield f'threshold: {self.threshold} leaves no update. Expected more than 0, or none.'
    for name in ('power', 'eps', 'min_size'):
      if getattr(self, name) <= 0:
        yield f'{name}: {getattr(self, name)} cannot be. Expected more than 0.'
