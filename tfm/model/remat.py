"""Which activations of a layer are kept for the backward pass, by name."""

from collections.abc import Callable
from typing import Any

import jax

from tfm.core.registry import Table

_policies = jax.checkpoint_policies

#: none keeps everything; full keeps a layer's input only; dots keeps the outputs of weight matmuls;
#: dots_batch those of attention's matmuls too.
POLICIES = Table(
  'remat policy',
  none=None,
  full=_policies.nothing_saveable,
  dots=_policies.dots_with_no_batch_dims_saveable,
  dots_batch=_policies.dots_saveable,
)


def remat(body: Callable[..., Any], name: str) -> Callable[..., Any]:
  """`body`, keeping what policy `name` keeps and computing the rest again."""
  policy = POLICIES[name]
  return body if policy is None else jax.checkpoint(body, policy=policy, prevent_cse=False)
