"""What a layer can tell of itself beside its output, where somebody asks: nothing is computed
otherwise.
"""

from collections.abc import Callable

from flax import linen as nn
import jax

#: What enters each block `[B, T, D]`; the weights of who looks at whom `[B, N, T, S]`, of a
#: decoder's and of an encoder's tokens.
HIDDEN, ATTENTIONS, CROSS = 'hidden_states', 'attentions', 'cross_attentions'


def capture(module: nn.Module, what: str, value: Callable[[], jax.Array]) -> None:
  """Says `value()` of the layer that `module` stands in, if `what` is asked for."""
  if module.is_mutable_collection(what) and not module.is_initializing():
    module.sow(what, 'value', value(), reduce_fn=lambda _, new: new, init_fn=lambda: None)
