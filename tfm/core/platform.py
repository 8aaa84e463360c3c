"""The platform that a program is traced for, which may be absent from this machine."""

from collections.abc import Iterator
import contextlib
import contextvars

import jax

_TARGET: contextvars.ContextVar[str | None] = contextvars.ContextVar('target', default=None)


def target() -> str:
  """Return 'cpu', 'gpu' or 'tpu': the platform of `traced_for`, or of this machine."""
  return _TARGET.get() or jax.default_backend()


@contextlib.contextmanager
def traced_for(platform: str) -> Iterator[None]:
  """Trace programs for the devices of a platform within the context.

  Args:
    platform: `jax.Device.platform` of the devices; 'cuda' and 'rocm' are 'gpu'.
  """
  token = _TARGET.set({'cuda': 'gpu', 'rocm': 'gpu'}.get(platform, platform))
  try:
    yield
  finally:
    _TARGET.reset(token)
