"""Exceptions for users' mistakes, and the text of unknown-name errors."""

from collections.abc import Iterable
import difflib


class UserError(ValueError):
  """A mistake that a user can correct; the command line prints it and exits with status 2.

  The form is *where: problem (value). Expected ... . Did you mean ...?*
  """


class ConfigError(UserError):
  """An invalid config: unknown fields or parts, wrong types, or parts that do not fit together."""


#: Up to this many known names an error lists all of them; of more it lists the nearest `_NEAREST`.
_LISTED, _NEAREST = 24, 8


def unknown(kind: str, name: object, known: Iterable[str], command: str = '') -> str:
  """Return the text of an unknown-name error.

  Args:
    kind: The meaning of the name, such as 'flag'.
    name: The unknown name.
    known: The known names. Up to 24 are all listed; of more, the nearest eight.
    command: A command that lists all names.

  Returns:
    `unknown <kind> '<name>'. Did you mean ...? Known: ...`
  """
  names = sorted(known)
  near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
  hint = f' Did you mean {" or ".join(map(repr, near))}?' if near else ''
  where = f'; `{command}` lists all' if command else ''
  if len(names) <= _LISTED:
    listed = f'Known: {", ".join(names) or "none"}{where}.'
  else:
    nearest = difflib.get_close_matches(str(name), names, n=_NEAREST, cutoff=0.0)
    listed = f'Nearest of {len(names)} known: {", ".join(nearest)}{where}.'
  return f'unknown {kind} {str(name)!r}.{hint} {listed}'
