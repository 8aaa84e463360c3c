"""The signature of a loop over the repeats of a segment, and which loop runs a segment."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax

from tfm.parts.context import Ctx

#: `(x_BTD, carry, aux)`: the residual stream, what is passed beside it, and the sum of auxiliary
#: losses.
Carry = tuple[jax.Array, Any, jax.Array]


class Layers(NamedTuple):
  """The inputs of the repeats, each a tree of arrays stacked on a leading axis L (or None).

  Attributes:
    params: parameters; a tuple of trees if `tfm.generate.prepare` has laid them out one by one.
    caches: caches; a tuple of trees in the same case.
    keys: dropout keys.
    number: index of the first block of each repeat.
  """

  params: Any
  caches: Any
  keys: jax.Array | None
  number: jax.Array


#: One repeat: `(carry, layer) -> (carry, outputs)`, where `layer` has one element of each field of
#: `Layers`.
Body = Callable[[Carry, Any], tuple[Carry, Any]]


class Loop(Protocol):
  """`(body, unit, ctx, carry, layers) -> (carry, outputs)`.

  Runs `body` for every repeat in order. `unit` and `ctx` are what `body` applies, for loops that
  need the parts of a repeat by themselves. `outputs` has the second result of `body`, stacked over
  repeats."""

  def __call__(
    self, body: Body, unit: Any, ctx: Ctx, carry: Carry, layers: Layers
  ) -> tuple[Carry, Any]: ...
