"""What pieces with parameters of their own derive from."""

from collections.abc import Callable
from typing import Any

from flax import linen as nn


class Module(nn.Module):
  """A linen module that takes a parameter which is there, and has the shape that was asked for, as
  it is.

  *Why*: flax would trace how it starts, only to learn its shape: a quarter of the time in which a
  forward pass is traced. Where the shape is another one, flax says so."""

  @nn.nowrap
  def param(self, name: str, init_fn: Callable[..., Any], *init_args: Any, **options: Any) -> Any:
    if init_args and not self.is_initializing() and self.has_variable('params', name):
      found: Any = self.get_variable('params', name)
      if getattr(found, 'shape', None) == init_args[0]:
        return found
    return super().param(name, init_fn, *init_args, **options)
