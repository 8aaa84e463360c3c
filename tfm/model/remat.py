"""Rematerialisation policies: which activations of a layer are stored for the backward pass."""

from collections.abc import Callable, Iterator
from typing import Any

import jax

from tfm.core import errors
from tfm.core.registry import Table
from tfm.parts.stored_names import NAMES

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

#: The suffix of activations that are stored in the memory of the host.
HOST = '@host'


def check(remat: str) -> Iterator[str]:
  """Yield a message if `remat` is not a policy."""
  unknown = [name for name in _names(remat) if name not in NAMES]
  if remat not in POLICIES and unknown:
    yield (
      f'remat: is {remat!r}. Expected {", ".join(POLICIES)}, or activations to store joined by +, '
      f'of {", ".join(NAMES)}; {HOST} stores one on the host, such as attention+residual{HOST}.'
    )


def offloads(remat: str) -> bool:
  """Return whether a policy stores activations in the memory of the host."""
  return HOST in remat


def remat(body: Callable[..., Any], name: str) -> Callable[..., Any]:
  """Return `body` with rematerialisation.

  Args:
    body: The function.
    name: A policy of `POLICIES`, or the names of stored activations (`check`).

  Returns:
    The function.

  Raises:
    ConfigError: The policy is unknown.
  """
  policy = _policy(name)
  return body if policy is None else jax.checkpoint(body, policy=policy, prevent_cse=False)


def _policy(remat: str) -> Callable[..., Any] | None:
  names = _names(remat)
  if not set(names) & {*NAMES}:
    return POLICIES[remat]
  if messages := list(check(remat)):
    raise errors.ConfigError(messages[0])
  host = [name for part, name in zip(remat.split('+'), names, strict=True) if part != name]
  device = [name for name in names if name not in host]
  if not host:
    return _policies.save_only_these_names(*device)
  return _policies.save_and_offload_only_these_names(
    names_which_can_be_saved=device,
    names_which_can_be_offloaded=host,
    offload_src='device',
    offload_dst='pinned_host',
  )


def _names(remat: str) -> list[str]:
  """Return the names of stored activations, without suffixes."""
  return [part.removesuffix(HOST) for part in remat.split('+')]
