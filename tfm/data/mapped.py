"""A memory-mapped array that releases the pages of its file from time to time."""

import mmap
from typing import Any

import numpy as np

#: Bytes of pages after which all are released. Linux may map 64 KiB around a byte that is read.
_LIMIT, _AROUND = 1 << 26, 1 << 16


class Mapped(np.memmap[Any, Any]):
  """A file as a read-only array, from which batches are read with arrays of indices.

  The system counts every page that a process has read of a file as its memory. Reads with arrays of
  indices release the pages from time to time. They stay in the cache of the system, so reading
  them again is cheap.
  """

  _read: int = 0

  def __getitem__(self, index: Any) -> Any:
    out = super().__getitem__(index)
    if not isinstance(index, np.ndarray):
      return out
    jumps = np.count_nonzero(np.abs(np.diff(index.ravel())) > mmap.PAGESIZE) + 1
    self._read += out.nbytes + jumps * _AROUND
    if self._read > _LIMIT:
      self._read = 0
      self._release()
    return out.view(np.ndarray)

  def _release(self) -> None:
    pages = getattr(self, '_mmap', None)
    if pages is not None and hasattr(mmap, 'MADV_DONTNEED'):
      pages.madvise(mmap.MADV_DONTNEED)
