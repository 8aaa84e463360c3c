"""Capture of intermediate values of a layer, computed only when they are requested."""

from collections.abc import Callable

from flax import linen as nn
import jax

#: Collections: the input of each block `[B, T, D]`, the attention weights of self-attention and of
#: cross-attention `[B, N, T, S]`.
HIDDEN, ATTENTIONS, CROSS = 'hidden_states', 'attentions', 'cross_attentions'


def capture(module: nn.Module, what: str, value: Callable[[], jax.Array]) -> None:
  """Store a value of a layer in the collection `what`, if that collection is mutable.

  Without the collection, and during initialisation, `value` is never called.

  Args:
    module: the layer that stores the value, under the name `value`.
    what: collection, such as `HIDDEN`, `ATTENTIONS` or `CROSS`.
    value: returns the array to store.
  """
  if module.is_mutable_collection(what) and not module.is_initializing():
    module.sow(what, 'value', value(), reduce_fn=lambda _, new: new, init_fn=lambda: None)
