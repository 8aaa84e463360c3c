"""The interface of a data source."""

from collections.abc import Iterator
import dataclasses
from typing import Any

from tfm.core.registry import Part
from tfm.data.dataset import ArraySpec, Dataset


@dataclasses.dataclass(frozen=True)
class Data(Part):
  """A source of examples.

  Attributes:
    batch: The size of the global batch.
    cache: The folder of prepared files. Defaults to `$TFM_CACHE`, `$XDG_CACHE_HOME/tfm` or
      `~/.cache/tfm`.
  """

  batch: int = 16
  cache: str = ''

  def open(self, task: Any) -> Dataset:
    """Return the dataset in the form that `task` needs.

    The first call may prepare files, which takes time.
    """
    raise NotImplementedError

  def specs(self) -> dict[str, ArraySpec]:
    """Return the arrays of a raw batch, without `sample`, `key` and `weights`.

    No data is opened.
    """
    raise NotImplementedError

  def check_sources(self) -> None:
    """Check that the files of the source exist, without reading them.

    Raises:
      UserError: A file or folder is missing.
      OSError: A file cannot be accessed.
    """

  def check(self) -> Iterator[str]:
    if self.batch < 1:
      yield f'batch: is {self.batch}. Expected 1 or more.'
