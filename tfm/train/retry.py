"""Repeat file operations after errors that may pass, such as a lost network mount."""

from collections.abc import Callable, Iterator
import errno
import re
import time
from typing import TypeVar

#: Seconds before the second, third, ... try.
PAUSES = (1.0, 2.0, 4.0, 8.0)

_NAMES = (
  'EIO ESTALE ETIMEDOUT EAGAIN EINTR EBUSY EREMOTEIO ENOLINK ENETDOWN ENETUNREACH ENETRESET '
  'ECONNRESET ECONNABORTED ECONNREFUSED ENOTCONN EHOSTDOWN EHOSTUNREACH'
)
# Not every system has all of them.
_PASSING = frozenset(getattr(errno, name) for name in _NAMES.split() if hasattr(errno, name))
# TensorStore raises ValueError with the status in the text.
_STATUS = re.compile(r'\b(UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED):')
_OS_CODE = re.compile(r"os_error_code='(\d+)'|OS error (\d+)")
_INTERNAL = re.compile(
  r'\s*\[?(tensorstore_spec|See full TensorStore details).*|Error opening "\w+" driver: ', re.DOTALL
)

T = TypeVar('T')


def retried(call: Callable[[], T], where: object, say: Callable[[str], None]) -> T:
  """Return `call()`, after further tries if its errors may pass.

  Args:
    call: Reads or writes files.
    where: The start of the message, such as a folder.
    say: Prints a message before each pause.

  Returns:
    The result of the first call without an error.

  Raises:
    Exception: The error of the last try, or an error that does not pass.
  """
  for number, pause in enumerate(PAUSES, 2):
    try:
      return call()
    except Exception as error:
      if not passing(error):
        raise
      tries = len(PAUSES) + 1
      say(f'{where}: {reason(error)}. Try {number} of {tries} follows in {pause:g} s.')
    time.sleep(pause)
  return call()


def passing(error: BaseException | None) -> bool:
  """Return whether an error of a device, a network or a server may pass."""
  return any(_passes(e) for e in causes(error))


def _passes(error: BaseException) -> bool:
  if isinstance(error, OSError):
    return error.errno in _PASSING or isinstance(error, TimeoutError)
  code = _OS_CODE.search(text := str(error))
  if code:
    return int(code[1] or code[2]) in _PASSING
  return bool(_STATUS.search(text))


def causes(error: BaseException | None) -> Iterator[BaseException]:
  """Yield an error and its causes."""
  while error is not None:
    yield error
    error = error.__cause__ or error.__context__


def reason(error: BaseException) -> str:
  """Return the text of an error in one line, without internals of TensorStore."""
  text = ' '.join(_INTERNAL.sub('', str(error)).split()) or type(error).__name__
  return text if len(text) < 500 else f'{text[:500]}...'
