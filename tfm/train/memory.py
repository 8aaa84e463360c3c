"""Keep freed host memory in the process, for faster training on CPUs."""

import ctypes
from importlib import metadata, util
import platform

import jax

# From glibc's malloc.h: the number of separately mapped blocks, the size at which the top of the
# heap is returned, and the number of heaps.
_MMAP_MAX, _TRIM_THRESHOLD, _ARENA_MAX = -4, -1, -8


def keep_freed_memory() -> bool:
  """Make glibc keep the memory that this process frees, if it will run on a CPU.

  Call it before JAX creates its threads. Threads that already run keep separate heaps, which return
  their memory to the kernel.

  On a CPU, XLA allocates the temporaries of a program when it starts and frees them when it ends.
  By default glibc returns blocks of that size to the kernel, which hands them out zeroed, page by
  page. For GPT-2 small that is 510,000 page faults a step, or 1 to 7 seconds of CPU
  (`scripts/bench/NOTES.md`). The process keeps its peak size. Accelerators and other C libraries
  have other allocators and are not changed.

  Returns:
    Whether glibc accepted the settings.
  """
  if not _only_cpu() or platform.libc_ver()[0] != 'glibc':
    return False
  libc = ctypes.CDLL(None)
  # One heap for all threads: further heaps hold at most 64 MB and map larger blocks separately.
  settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_ARENA_MAX, 1))
  accepted = [libc.mallopt(option, value) for option, value in settings]
  return all(accepted)


def _only_cpu() -> bool:
  """Return whether JAX will choose a CPU, without starting its threads."""
  if chosen := jax.config.values['jax_platforms']:
    return chosen == 'cpu'
  return not metadata.entry_points(group='jax_plugins') and util.find_spec('libtpu') is None
