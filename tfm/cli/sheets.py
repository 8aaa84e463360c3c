"""Tables of text for the terminal and for a page of Markdown."""

from collections.abc import Iterable
import dataclasses
import sys

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

#: How wide a table may be where nobody looks at it as it is written.
_WIDE = 400


@dataclasses.dataclass(frozen=True)
class Sheet:
  """A titled table; numbers stand to the right."""

  title: str
  columns: tuple[str, ...]
  rows: tuple[tuple[str, ...], ...]

  def markdown(self) -> str:
    """The sheet as a section of Markdown."""
    lines = [
      self.columns,
      tuple('--:' if self._numeric(i) else '---' for i in range(len(self.columns))),
      *self.rows,
    ]
    cells = ([cell.replace('|', r'\|') for cell in line] for line in lines)
    return '\n'.join([f'### {self.title}', '', *(f'| {" | ".join(line)} |' for line in cells), ''])

  def rich(self) -> Table:
    """The sheet for a terminal."""
    table = Table(
      box=SIMPLE_HEAD, title=self.title, title_justify='left', title_style='bold', pad_edge=False
    )
    for i, column in enumerate(self.columns):
      table.add_column(column, justify='right' if self._numeric(i) else 'left', overflow='fold')
    for row in self.rows:
      table.add_row(*map(Text, row))
    return table

  def _numeric(self, column: int) -> bool:
    cells = [row[column] for row in self.rows]
    return any(cells) and all(not cell or cell[0].isdigit() for cell in cells)


def show(sheets: Iterable[Sheet], markdown: bool = False) -> None:
  """Prints the sheets, each below the other."""
  console = Console(width=None if sys.stdout.isatty() else _WIDE)
  for sheet in sheets:
    if markdown:
      print(sheet.markdown())
    else:
      console.print(sheet.rich())
