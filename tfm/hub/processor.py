"""The files that configure a model's image or audio processor, kept byte for byte."""

from collections.abc import Mapping
import dataclasses
import json
from pathlib import Path
from typing import Any, Self

from tfm.core import errors
from tfm.data import processors
from tfm.hub.tokens import CONFIG

#: In a checkpoint of tfm.
KEPT = 'processor.json'


@dataclasses.dataclass(frozen=True)
class ProcessorFiles:
  """The processor files of a folder. They are parsed by `processor` alone, so a model loads beside any of them.

  Attributes:
    files: the contents by name (`preprocessor_config.json`, `processor_config.json`).
    model_type: that of the folder's config.json, for older files that name no class.
  """

  files: Mapping[str, bytes]
  model_type: str | None = None

  @classmethod
  def of(cls, processor: processors.Processor) -> Self:
    """Return the file of a processor that was made in Python."""
    text = json.dumps(processor.to_config(), indent=2, sort_keys=True) + '\n'
    return cls({processors.FILE: text.encode()})

  @classmethod
  def read(cls, folder: Path) -> Self | None:
    """Return the files of a published folder or of a checkpoint, None if it has none.

    Raises:
      UserError: the checkpoint's copy is damaged.
    """
    if (kept := folder / 'about' / KEPT).is_file():
      try:
        found = json.loads(kept.read_text('utf-8'))
        files = {name: text.encode('utf-8', 'surrogateescape') for name, text in found['files'].items()}
        return cls(files, found['model_type'])
      except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise errors.UserError(f'{kept}: is damaged ({error}). Expected the file that tfm.hub.save wrote.') from error
    files = {name: (folder / name).read_bytes() for name in processors.FILES if (folder / name).is_file()}
    return cls(files, _model_type(folder)) if files else None

  def write(self, folder: Path) -> None:
    """Write the files into a published folder."""
    for name, content in self.files.items():
      (folder / name).write_bytes(content)

  def keep(self, about: Path) -> None:
    """Write the files into the folder `about` of a checkpoint, where `read` finds them."""
    files = {name: content.decode('utf-8', 'surrogateescape') for name, content in self.files.items()}
    (about / KEPT).write_text(json.dumps({'model_type': self.model_type, 'files': files}, indent=1), 'utf-8')

  def processor(self) -> Any:
    """Return the processor.

    Raises:
      ConfigError: the files name a class that tfm lacks, or an option that it does not support.
    """
    return processors.from_files(self.files, self.model_type)


def _model_type(folder: Path) -> str | None:
  try:
    found = json.loads((folder / CONFIG).read_text('utf-8'))
  except (OSError, ValueError):
    return None  # whoever reads the model reports a damaged config.json
  return found.get('model_type') if isinstance(found, dict) else None
