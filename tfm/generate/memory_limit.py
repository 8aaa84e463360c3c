"""A bound on the number of new tokens: their cache must fit into memory."""

import functools
import os

import jax

from tfm.core import errors
from tfm.generate.options import Options
from tfm.generate.prompts import Batch
from tfm.model.cache import init_cache
from tfm.model.spec import Model
from tfm.parts.context import Run

#: Up to this many slots in total nothing is checked.
_UNCHECKED = 1 << 16
#: Bytes of a slot outside the cache: two token ids.
_BYTES_OF_IDS = 8


def check_memory(spec: Model, batch: Batch, options: Options, run: Run) -> None:
  """Check that the cache of a call of `generate` can fit into memory.

  The bound is the size of all local devices, or of the host's memory on CPUs. Less may be free.

  Args:
    spec: The model.
    batch: The prompts and the sizes of the buffers.
    options: The checked options.
    run: Precision and cache.

  Raises:
    UserError: The cache alone is larger, with the number of tokens that would fit.
  """
  sequences = len(batch.prompt) * options.beams
  if sequences * batch.slots <= _UNCHECKED:
    return
  available = _memory()
  per_slot = _bytes_of_slot(spec, run) + _BYTES_OF_IDS
  if available is None or sequences * batch.slots * per_slot <= available:
    return
  fitting = max(0, available // (per_slot * sequences) - batch.prompt.shape[1])
  needed = sequences * batch.slots * per_slot
  raise errors.UserError(
    f'generate: max_new_tokens={options.max_new_tokens} for {sequences} sequences needs a cache of '
    f'{needed / 2**30:,.0f} GiB, and there are {available / 2**30:,.0f} GiB of memory. '
    f'Expected at most {fitting} new tokens, fewer beams or fewer prompts.'
  )


@functools.lru_cache(maxsize=64)
def _bytes_of_slot(spec: Model, run: Run) -> int:
  """Return the bytes that one more token of a sequence adds to the cache."""
  dtype = run.precision.dtype('compute')
  size = lambda slots: sum(
    leaf.size * leaf.dtype.itemsize
    for leaf in jax.tree.leaves(
      jax.eval_shape(lambda: init_cache(spec, 1, slots, dtype, kind=run.cache))
    )
  )
  limit = spec.max_positions
  slots = 1024 if limit is None else max(2, min(1024, limit))
  return max(0, size(slots) - size(slots // 2)) // (slots - slots // 2)


@functools.cache
def _memory() -> int | None:
  """Return the bytes of memory of the local devices, None if unknown."""
  devices = jax.local_devices()
  if all(device.platform == 'cpu' for device in devices):
    return os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  limits = [(device.memory_stats() or {}).get('bytes_limit') for device in devices]
  known = [limit for limit in limits if limit]
  return sum(known) if len(known) == len(limits) else None
