"""What is freed stays with the process: on a CPU every step would ask the kernel for the same
gigabytes anew.
"""

import ctypes
from importlib import metadata, util
import platform

import jax

# Of glibc's malloc.h: how many blocks may be mapped one by one, when the top of the heap is given
# back, how many heaps.
_MMAP_MAX, _TRIM_THRESHOLD, _ARENA_MAX = -4, -1, -8


def keep_freed() -> bool:
  """Tells glibc to keep the memory this process frees, if it will run on a CPU; whether it was
  told.

  Call it before JAX has devices: threads that there are keep the heaps they have, and those are
  given back.

  XLA on a CPU takes a program's temporaries when it starts and frees them when it ends, and glibc
  returns blocks of that size to the kernel, which hands them out zeroed, a page at a time: 510,000
  page faults a step of GPT-2 small, which cost 1 to 7 seconds of CPU (`scripts/bench/NOTES.md`). A
  process that keeps it stays as large as it was at its largest. Accelerators have allocators of
  their own; so have other C libraries."""
  if not _only_cpu() or platform.libc_ver()[0] != 'glibc':
    return False
  libc = ctypes.CDLL(None)
  # Threads beyond the first would have heaps of at most 64 MB each, and map what is larger: so one
  # heap for all.
  told = [
    libc.mallopt(*choice)
    for choice in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_ARENA_MAX, 1))
  ]
  return all(told)


def _only_cpu() -> bool:
  """Whether JAX will choose a CPU, without having it choose: that starts the threads."""
  if chosen := jax.config.values['jax_platforms']:
    return chosen == 'cpu'
  return not metadata.entry_points(group='jax_plugins') and util.find_spec('libtpu') is None
