"""Rematerialisation policies: which activations of a layer are stored for the backward pass."""

from collections.abc import Callable
from typing import Any

import jax

from tfm.core.registry import Table

_policies = jax.checkpoint_policies

#: none stores everything; full stores only a layer's input; dots stores the outputs of weight
#: matmuls; dots_batch also the outputs of attention matmuls.
POLICIES = Table(
  'remat policy',
  none=None,
  full=_policies.nothing_saveable,
  dots=_policies.dots_with_no_batch_dims_saveable,
  dots_batch=_policies.dots_saveable,
)


def remat(body: Callable[..., Any], name: str) -> Callable[..., Any]:
  """Return `body` with rematerialisation under a policy of `POLICIES`."""
  policy = POLICIES[name]
  return body if policy is None else jax.checkpoint(body, policy=policy, prevent_cse=False)
