"""The base class of parts with parameters."""

from collections.abc import Callable
from typing import Any

from flax import linen as nn


class Module(nn.Module):
  """A linen module that skips the shape check of parameters with the expected shape.

  flax traces the initializer of each parameter in each forward pass to compare shapes. That takes
  a quarter of the tracing time. Parameters of another shape still raise flax's error.
  """

  @nn.nowrap
  def param(self, name: str, init_fn: Callable[..., Any], *init_args: Any, **options: Any) -> Any:
    if init_args and not self.is_initializing() and self.has_variable('params', name):
      found: Any = self.get_variable('params', name)
      if getattr(found, 'shape', None) == init_args[0]:
        return found
    return super().param(name, init_fn, *init_args, **options)
