"""Checks that inputs of `apply` are arrays with a usable dtype and without empty axes."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tfm.core import errors
from tfm.model.spec import Tower, last_width
from tfm.parts.embed import ids_in_range
from tfm.parts.embed.base import Embed


def as_array(name: str, value: Any) -> Any:
  """Return an input as an array.

  Args:
    name: The keyword of `apply`.
    value: An array, or nested lists of numbers.

  Returns:
    The value itself if it is an array of JAX or NumPy, else a NumPy array.

  Raises:
    UserError: The value is no array of numbers, or has a dtype that its name rules out.
  """
  array = value
  if not isinstance(value, (jax.Array, np.ndarray)):
    try:
      array = np.asarray(value)
    except (ValueError, TypeError, OverflowError, RuntimeError):
      if isinstance(value, (list, tuple)):
        raise errors.UserError(
          f'apply: {name} has sequences of different lengths. Expected [B, T], padded.'
        ) from None
      raise _not_numbers(name, f'is of type {type(value).__name__}') from None
  if not (_is_number(array.dtype) or array.dtype == np.bool_):
    if isinstance(value, (list, tuple, jax.Array, np.ndarray)):
      raise _not_numbers(name, f'has dtype {array.dtype}')
    raise _not_numbers(name, f'is of type {type(value).__name__}')
  if name.endswith('_ids') and jnp.issubdtype(array.dtype, jnp.floating):
    raise errors.UserError(f'apply: {name} has dtype {array.dtype}. Expected integers.')
  if name.endswith('_mask') and jnp.issubdtype(array.dtype, jnp.floating):
    _check_mask(name, array)
  return array


def check_dtype(name: str, value: Any, like: Any) -> None:
  """Check that an input has integers where the model has a table of them.

  Raises:
    UserError: The model reads integers, and the input has none.
  """
  if jnp.issubdtype(like, jnp.integer) and jnp.issubdtype(value.dtype, jnp.floating):
    raise errors.UserError(f'apply: {name} has dtype {value.dtype}. Expected integers.')


def check_not_empty(name: str, value: Any) -> None:
  """Check that no axis of an input has size 0.

  Raises:
    UserError: An axis is empty, such as the batch or the length.
  """
  if 0 in value.shape:
    raise errors.UserError(
      f'apply: {name} has shape {value.shape}, which is empty. Expected at least 1 on each axis.'
    )


def check_outputs(name: str, value: Any, tower: Tower) -> None:
  """Check the outputs of a tower that were computed before.

  Raises:
    UserError: They are not floats `[B, S, D]` of the width of the tower.
  """
  check_not_empty(name, value)
  assert tower.embed is not None
  width = tower.embed.d_out or last_width(tower)
  floating = jnp.issubdtype(value.dtype, jnp.floating)
  if value.ndim != 3 or value.shape[2] != width or not floating:
    raise errors.UserError(
      f'apply: {name} has shape {value.shape} and dtype {value.dtype}. '
      f'Expected floats [B, S, D={width}].'
    )


@functools.lru_cache(maxsize=512)
def dtypes(embed: Embed) -> dict[str, Any]:
  """Return the dtypes of the required inputs of an input layer, by name."""
  return {name: like.dtype for name, like in embed.shapes(1, 1).items()}


def _is_number(dtype: Any) -> bool:
  return bool(jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.floating))


def _not_numbers(name: str, problem: str) -> errors.UserError:
  expected = 'integers' if name.endswith('_ids') else 'numbers'
  return errors.UserError(f'apply: {name} {problem}. Expected {expected}.')


def _check_mask(name: str, mask: Any) -> None:
  """Check that a mask of floats is 1 or 0, and not one that is added to scores (0 or -inf)."""
  if not ids_in_range.on_host(mask):
    return
  values = np.asarray(mask)
  if not ((values == 0) | (values == 1)).all():
    raise errors.UserError(
      f'apply: {name} has floats other than 0 and 1. Expected 1 for tokens and 0 for padding.'
    )
