"""Counts of the text that a source skips or replaces, by reason and file."""

from collections.abc import Iterator
import contextlib
import contextvars
import dataclasses

#: Files of a reason that are listed by name. The others are only counted.
_LISTED = 5


@dataclasses.dataclass
class Rejects:
  """Counts by reason and file.

  Attributes:
    counts: The number of cases, by reason and then by file.
  """

  counts: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)

  def add(self, reason: str, file: str, n: int) -> None:
    files = self.counts.setdefault(reason, {})
    files[file] = files.get(file, 0) + n

  def summary(self) -> dict[str, dict[str, int | list[str]]]:
    """Return JSON with the number of cases and the first files of each reason."""
    rows: dict[str, dict[str, int | list[str]]] = {}
    for reason, files in sorted(self.counts.items()):
      rows[reason] = {
        'count': sum(files.values()),
        'files': len(files),
        'first': sorted(files)[:_LISTED],
      }
    return rows


def lines(summary: dict[str, dict[str, int | list[str]]]) -> Iterator[str]:
  """Yield a sentence for each reason of a summary, such as '3 empty documents skipped in a.txt'."""
  for reason, row in summary.items():
    first = row['first']
    assert isinstance(first, list)
    assert isinstance(row['files'], int)
    more = row['files'] - len(first)
    others = f' and {more} more files' if more else ''
    where = f' in {", ".join(first)}{others}' if any(first) else ''
    yield f'{row["count"]} {reason}{where}'


_CURRENT: contextvars.ContextVar[Rejects | None] = contextvars.ContextVar('rejects', default=None)


@contextlib.contextmanager
def collected(rejects: Rejects | None) -> Iterator[None]:
  """Count into `rejects` within the context. None counts nothing.

  A source is read several times, for example to learn a vocabulary. Only one reading counts.
  """
  token = _CURRENT.set(rejects)
  try:
    yield
  finally:
    _CURRENT.reset(token)


def reject(reason: str, file: str = '', n: int = 1) -> None:
  """Count `n` cases of a reason in the current collection, if there is one."""
  rejects = _CURRENT.get()
  if rejects is not None and n:
    rejects.add(reason, file, n)
