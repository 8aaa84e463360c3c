"""The signature of a loop over the repeats of a segment."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax

from tfm.parts.context import Ctx

#: `(x_BTD, carry, aux)`: the residual stream, the state of the residual kind, and the sum of
#: auxiliary losses.
Carry = tuple[jax.Array, Any, jax.Array]


class Layers(NamedTuple):
  """The inputs of the repeats, as trees with a leading layer axis (or None).

  Attributes:
    params: Parameters; a tuple of trees if `tfm.generate.prepare` has unstacked them.
    caches: Caches; a tuple of trees in the same case.
    keys: Dropout keys.
    number: The index of the first block of each repeat.
  """

  params: Any
  caches: Any
  keys: jax.Array | None
  number: jax.Array


#: One repeat: `(carry, layer, ctx) -> (carry, outputs)`. `layer` has one element of each field
#: of `Layers`. The context defaults to that of the loop.
Body = Callable[..., tuple[Carry, Any]]


class Loop(Protocol):
  """`(body, unit, ctx, carry, layers) -> (carry, outputs)`."""

  def __call__(
    self, body: Body, unit: Any, ctx: Ctx, carry: Carry, layers: Layers
  ) -> tuple[Carry, Any]:
    """Run all repeats in order.

    Args:
      body: One repeat.
      unit: The module that `body` applies, for loops that need its blocks separately.
      ctx: The context that `body` applies it with.
      carry: The initial carry.
      layers: The inputs of the repeats.

    Returns:
      (the final carry, the outputs of `body` stacked over repeats).
    """
    ...
