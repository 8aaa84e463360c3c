"""Tables of interchangeable parts, and `Part`, the base class of all parts.

A kind of part is a package with a `base.py` (its interface), a file for each part, and an
`__init__.py` with its `TABLE`. A part adds two lines to the table: an import and an entry. Imports
register nothing.
"""

from collections.abc import Iterator, Mapping
import dataclasses
import importlib
from typing import Any

from tfm.core import errors


class Table(Mapping[str, Any]):
  """A read-only mapping of names to entries. Unknown names raise errors with near names.

  Args:
    kind: The kind of entry, for errors.
    former: Earlier names of entries, with their present names. Stored configs may use them.
    command: A command that lists all entries, for errors.
    **entries: The entries by name.

  Example:
    >>> shapes = Table('shape', round=float, square=int)
    >>> shapes['rund']
    Traceback (most recent call last):
    ...
    tfm.core.errors.ConfigError: unknown shape 'rund'. Did you mean 'round'? Known: round, square.
  """

  def __init__(
    self, kind: str, former: Mapping[str, str] | None = None, command: str = '', /, **entries: Any
  ):
    self.kind, self.command = kind, command
    self.former = dict(former or {})
    self._entries = entries

  def __getitem__(self, name: str) -> Any:
    if name not in self._entries:
      raise errors.ConfigError(self.unknown(name))
    return self._entries[name]

  def unknown(self, name: str) -> str:
    """Return the text of the error for a name that is no entry."""
    if name in self.former:
      return f'{self.kind} {name!r} has been renamed. Expected {self.former[name]!r}.'
    return errors.unknown(self.kind, name, self._entries, self.command)

  def __contains__(self, name: object) -> bool:
    return name in self._entries

  def __iter__(self) -> Iterator[str]:
    return iter(self._entries)

  def __len__(self) -> int:
    return len(self._entries)

  def name_of(self, part: object) -> str:
    """Return the name of a part (an instance or a class) in the table.

    Raises:
      ConfigError: The class is not in the table.
    """
    cls = part if isinstance(part, type) else type(part)
    for name, entry in self._entries.items():
      if entry is cls:
        return name
    raise errors.ConfigError(
      f'{cls.__name__} is not in the table of {self.kind}s. Expected an entry.'
    )


@dataclasses.dataclass(frozen=True)
class Part:
  """A part of a model or a run: a frozen, hashable config that also builds its code.

  The class directly below `Part` is a *kind* (`Norm`, `Mixer`, `Task`, ...), defined in
  `<kind>/base.py`. `core.config.validate` collects the sentences of every `check` in a config.
  """

  @classmethod
  def table(cls) -> Table:
    """Return the table of this kind of part."""
    kind = next(c for c in cls.__mro__ if Part in c.__bases__)
    return importlib.import_module(kind.__module__.rpartition('.')[0]).TABLE

  @classmethod
  def from_text(cls, text: str) -> 'Part':
    """Return the part of a name with its default fields; a kind may accept other texts."""
    return cls.table()[text]()

  def check(self) -> Iterator[str]:
    """Yield a sentence for every violation in the fields of this part."""
    yield from ()
