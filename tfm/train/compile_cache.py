"""Keep compiled programs on disk, so that a restarted run starts sooner."""

from collections.abc import Callable, Iterator
import contextlib
import hashlib
from pathlib import Path
import platform
import time
from typing import Any, NamedTuple

import jax

from tfm.data.store import default_cache

#: Programs that were compiled longer ago are removed.
_DAYS = 30.0
_HIT = '/jax/compilation_cache/cache_hits'
_hits = 0


def enable(folder: Path | None = None) -> Path | None:
  """Make JAX keep compiled programs in a folder and reuse them.

  JAX identifies a program by its code, the compiler options, the version of XLA and the devices.
  The folder has one subfolder for each version of JAX and kind of CPU, because programs for a CPU
  use all of its instructions. Several processes may share it. An unreadable program is compiled
  again.

  Args:
    folder: The folder. Defaults to `compiled` in `$TFM_CACHE` or the user's cache folder.

  Returns:
    The subfolder. None if JAX already has a folder (`JAX_COMPILATION_CACHE_DIR`), or if the folder
    is not writable.
  """
  if jax.config.values['jax_compilation_cache_dir']:
    return None
  cpu = hashlib.sha256(_cpu().encode()).hexdigest()[:8]
  path = (folder or default_cache() / 'compiled') / f'jax-{jax.__version__}-{cpu}'
  try:
    path.mkdir(parents=True, exist_ok=True)
    _remove_old(path)
  except OSError:
    return None
  jax.config.update('jax_compilation_cache_dir', str(path))
  return path


@contextlib.contextmanager
def bypassed() -> Iterator[None]:
  """Compile within the context, and neither read nor write the cache."""
  from jax.experimental.compilation_cache import compilation_cache

  before = bool(jax.config.values['jax_enable_compilation_cache'])
  jax.config.update('jax_enable_compilation_cache', False)
  compilation_cache.reset_cache()
  try:
    yield
  finally:
    jax.config.update('jax_enable_compilation_cache', before)
    compilation_cache.reset_cache()


def _remove_old(path: Path) -> None:
  oldest = time.time() - _DAYS * 24 * 3600
  for file in path.iterdir():
    with contextlib.suppress(FileNotFoundError):  # another process removed it
      if file.is_file() and file.stat().st_mtime < oldest:
        file.unlink()


def _cpu() -> str:
  """Return the architecture of this machine, with the instruction sets of its CPU."""
  lines: list[str] = []
  with contextlib.suppress(OSError):
    lines = Path('/proc/cpuinfo').read_text('utf-8').splitlines()
  names = ('flags', 'Features', 'model name')
  return platform.machine() + ''.join(sorted({line for line in lines if line.startswith(names)}))


class Compiled(NamedTuple):
  """How long a program took to compile.

  Attributes:
    trace: Seconds to trace and lower the function.
    compile: Seconds to compile it, or to read it from the cache.
    cached: Whether it was in the cache.
  """

  trace: float
  compile: float
  cached: bool

  def __str__(self) -> str:
    source = 'read from the cache' if self.cached else 'compile'
    return f'trace {self.trace:.1f} s, {source} {self.compile:.1f} s'


def compiled(fn: Callable[..., Any], *args: Any) -> Compiled:
  """Compile a function of `jax.jit` for some arguments. Its next call with them runs at once.

  Args:
    fn: The function.
    *args: Its arguments, which are not donated.

  Returns:
    How long that took.
  """
  start, hits = time.perf_counter(), _hits
  lowered = fn.lower(*args)  # type: ignore[attr-defined]
  traced = time.perf_counter()
  lowered.compile()
  return Compiled(traced - start, time.perf_counter() - traced, _hits > hits)


def _count(event: str, **_: Any) -> None:
  global _hits
  _hits += event == _HIT


jax.monitoring.register_event_listener(_count)
