"""Tables of interchangeable pieces, and `Part`, the frozen spec every piece is.

A kind of part is a package with a `base.py` (the contract), one file a piece, and an `__init__.py`
that holds `TABLE`: two lines an entry (its import, its row). Nothing registers itself on import.
"""

from collections.abc import Iterator, Mapping
import dataclasses
import importlib
from typing import Any

from tfm.core import errors


class Table(Mapping[str, Any]):
  """A read-only mapping of names to entries. Unknown names raise an error with near names.

  Args:
    kind: The kind of entry, for errors.
    former: Earlier names of entries, each with its present name. Stored configs may use them; new
    input may not.
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
    """The row on which `part` (or its class) stands."""
    cls = part if isinstance(part, type) else type(part)
    for name, entry in self._entries.items():
      if entry is cls:
        return name
    raise errors.ConfigError(f'{cls.__name__} stands on no row of the table of {self.kind}s.')


@dataclasses.dataclass(frozen=True)
class Part:
  """A piece of a model or a run: a frozen, hashable value that is its config and builds its code.

  The class directly below `Part` is a *kind* (`Norm`, `Mixer`, `Task`, ...); it lives in
  `<kind>/base.py` beside that kind's table. A piece may yield sentences about its own fields from
  `check`; `core.config.validate` collects them from the whole tree with their paths."""

  @classmethod
  def table(cls) -> Table:
    """The table of this part's kind."""
    kind = next(c for c in cls.__mro__ if Part in c.__bases__)
    return importlib.import_module(kind.__module__.rpartition('.')[0]).TABLE

  @classmethod
  def from_text(cls, text: str) -> 'Part':
    """The piece that `text` names, with its default fields; a kind may read more."""
    return cls.table()[text]()

  def check(self) -> Iterator[str]:
    """Yields a sentence for every invariant of this part's own fields that does not hold."""
    yield from ()
