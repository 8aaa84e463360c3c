"""The one kind of exception a user's mistake raises, and the one wording of an unknown name."""

from collections.abc import Iterable
import difflib


class UserError(ValueError):
  """A mistake a user can make and mend; the command line prints its text and exits with status 2.

  Written as *where: what is wrong with which value. What was wanted. The near miss.*
  """


class ConfigError(UserError):
  """A config that cannot be: an unknown field or part, a wrong type, parts that do not fit together."""


def unknown(kind: str, name: object, known: Iterable[str]) -> str:
  """`unknown <kind> '<name>'. Did you mean ...? Known: ...`: the one wording of every unknown-name error."""
  names = sorted(known)
  near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
  hint = f' Did you mean {" or ".join(map(repr, near))}?' if near else ''
  return f'unknown {kind} {str(name)!r}.{hint} Known: {", ".join(names) or "none"}.'
