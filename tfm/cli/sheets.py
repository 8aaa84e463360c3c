"""Tables of text for the terminal and for a page of Markdown."""

from collections.abc import Iterable, Sequence
import dataclasses
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

#: Names up to this length are never wrapped.
_NAME = 40
#: Words up to the first of these lengths that fits the terminal are not broken.
_WORDS = (24, 16, 12, 8, 1)
#: Spaces between columns.
_GAP = 2


@dataclasses.dataclass(frozen=True)
class Sheet:
  """A titled table; columns of numbers are aligned right."""

  title: str
  columns: tuple[str, ...]
  rows: tuple[tuple[str, ...], ...]

  def containing(self, words: Sequence[str], columns: int | None = None) -> 'Sheet':
    """Return the sheet with the rows that contain all words, in any case.

    Args:
      words: The words. The title counts as a part of each row.
      columns: Search the first columns only; None searches all.
    """

    def holds(row: tuple[str, ...]) -> bool:
      text = ' '.join([self.title, *row[:columns]]).lower()
      return all(word.lower() in text for word in words)

    return dataclasses.replace(self, rows=tuple(filter(holds, self.rows)))

  def markdown(self) -> str:
    """Return the sheet as a section of Markdown."""
    rules = tuple({True: '--:', False: '---'}[self._numeric(i)] for i in range(len(self.columns)))
    lines = [f'### {self.title}', '']
    for row in (self.columns, rules, *self.rows):
      cells = [cell.replace('|', r'\|') for cell in row]
      lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join([*lines, ''])

  def rich(self, width: int = 80) -> Table:
    """Return the sheet as a table of rich, for a terminal with `width` columns."""
    unbroken = next((n for n in _WORDS if sum(self._narrowest(n)) < width), 1)
    narrowest = self._narrowest(unbroken)
    table = Table(
      box=SIMPLE_HEAD, title=self.title, title_justify='left', title_style='bold',
      pad_edge=False, collapse_padding=True,
    )  # fmt: skip
    for i, column in enumerate(self.columns):
      justify: Literal['left', 'right'] = 'right' if self._numeric(i) else 'left'
      table.add_column(
        column, justify=justify, overflow='fold', no_wrap=self._unwrapped(i),
        min_width=narrowest[i] - _GAP,
      )  # fmt: skip
    for row in self.rows:
      table.add_row(*map(Text, row))
    return table

  def _narrowest(self, unbroken: int) -> list[int]:
    """Return the least width of each column and its gap, with words of `unbroken` in one line."""
    widths = []
    for i, column in enumerate(self.columns):
      cells = [column, *(row[i] for row in self.rows)]
      words = [word for cell in cells for word in cell.split()]
      longest = max(map(len, words), default=0)
      whole = max(map(len, cells))
      widths.append(_GAP + (whole if self._unwrapped(i) else min(longest, unbroken)))
    return widths

  def _unwrapped(self, column: int) -> bool:
    longest = max((len(row[column]) for row in self.rows), default=0)
    return self._numeric(column) or (column == 0 and longest <= _NAME)

  def _numeric(self, column: int) -> bool:
    cells = [row[column] for row in self.rows]
    return any(cells) and all(not cell or cell[0].isdigit() for cell in cells)


def show(sheets: Iterable[Sheet], markdown: bool = False) -> None:
  """Print sheets, as tables that wrap at the width of the terminal or as Markdown.

  The width is 80 columns, or the value of the environment variable COLUMNS, where the output is no
  terminal.
  """
  console = Console()
  for sheet in sheets:
    if markdown:
      print(sheet.markdown())
    else:
      console.print(sheet.rich(console.width))
