"""The one kind of exception a user's mistake raises, and the one wording of an unknown name."""

from collections.abc import Iterable
import difflib


class UserError(ValueError):
  """A mistake a user can make and mend; the command line prints its text and exits with status 2.

  Written as *where: what is wrong with which value. What was wanted. The near miss.*
  """


class ConfigError(UserError):
  """A config that cannot be: an unknown field or part, a wrong type, parts that do not fit
  together.
  """


#: Up to this many known names an error lists all of them; of more it lists the nearest `_NEAREST`.
_LISTED, _NEAREST = 24, 8


def unknown(kind: str, name: object, known: Iterable[str], command: str = '') -> str:
  """Return the text of an unknown-name error: `unknown <kind> '<name>'. Did you mean ...? Known:
  ...`

  Args:
    kind: What the name stands for, as 'flag'.
    name: The unknown name.
    known: All known names. Up to 24 are all listed; of more, the eight nearest.
    command: A command that lists all names.

  Returns:
    The text, with up to three near names.
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
