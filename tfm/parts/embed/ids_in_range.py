"""Range checks of ids before a device uses them as indices."""

from typing import Any

import jax
import numpy as np

from tfm.core import errors


def check(name: str, ids: Any, size: int | None, kind: str) -> None:
  """Check that ids are valid indices of a table.

  A lookup out of range raises no error on a device. It reads another entry or returns NaN, which
  spreads through attention even from masked positions. So padding must also have a valid id,
  usually 0.

  Only values in host memory are checked: numpy arrays, and arrays on CPU devices. Traced arrays and
  arrays of accelerators or other processes are not checked.

  Args:
    name: name of the input.
    ids: integers of any shape.
    size: number of table entries; None for no limit.
    kind: plural noun for the ids in the error message.

  Raises:
    UserError: ids are not integers, or one is negative or not below `size`.
  """
  if size is None or not on_host(ids):
    return
  values = np.asarray(ids)
  if values.size and not np.issubdtype(values.dtype, np.integer):
    raise errors.UserError(f'apply: {name} has dtype {values.dtype}. Expected integers.')
  if not values.size or (values.min() >= 0 and values.max() < size):
    return
  at = tuple(int(i) for i in np.argwhere((values < 0) | (values >= size))[0])
  raise errors.UserError(
    f'apply: {name} is {values[at]} at {list(at)}. Expected {kind} of at least 0 and below {size}, '
    'also where the attention mask is 0.'
  )


def on_host(ids: Any) -> bool:
  """Return whether the values of an input can be read without waiting for an accelerator."""
  if isinstance(ids, jax.core.Tracer):
    return False
  if isinstance(ids, jax.Array):
    return ids.is_fully_addressable and all(d.platform == 'cpu' for d in ids.devices())
  return isinstance(ids, np.ndarray)
