"""Ids that have to index a table, checked before the device reads them."""

from typing import Any

import jax
import numpy as np

from tfm.core import errors


def check(name: str, ids: Any, size: int | None, kind: str) -> None:
  """Raise a UserError for an id below 0 or not below `size`; None is any size.

  A lookup out of range raises no error on a device: it reads another row or returns NaN, which
  spreads through attention even from masked positions. So the rule covers padding too; pad with any
  id of the table, usually 0.

  Only values that the host holds are checked: numpy arrays, and `jax.Array`s in the memory of CPU
  devices. Traced arrays, and arrays of accelerators or of other processes, are not read."""
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
    f'also where the '
    'attention mask is 0.'
  )


def on_host(ids: Any) -> bool:
  """Return whether the values of an input can be read without waiting for an accelerator."""
  if isinstance(ids, jax.core.Tracer):
    return False
  if isinstance(ids, jax.Array):
    return ids.is_fully_addressable and all(d.platform == 'cpu' for d in ids.devices())
  return isinstance(ids, np.ndarray)
