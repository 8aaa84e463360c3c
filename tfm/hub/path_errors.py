"""Recognise paths that are neither a tfm checkpoint nor a published folder."""

import json
from pathlib import Path

from tfm.core import errors
from tfm.hub.path_kinds import (
  CONFIG,
  MISSING_PATHS,
  PATH_KINDS,
  UNREADABLE_WEIGHTS,
  WEIGHTS,
  Kind,
  is_pointer,
)

#: Fields of the config.json of libraries that write no model_type.
_LIBRARIES = {
  '_class_name': 'diffusers',
  '_diffusers_version': 'diffusers',
  'architecture': 'timm',
  'model_cfg': 'OpenCLIP',
}


def resolve_path(path: str | Path) -> Path:
  """Return the folder of a path: the snapshot in a Hugging Face cache folder, else the path itself.

  Raises:
    UserError: a cache folder has no snapshot, or several without a main one.
  """
  folder = Path(path).expanduser()
  if not (folder.name.startswith('models--') and (folder / 'snapshots').is_dir()):
    return folder
  snapshots = sorted(p for p in (folder / 'snapshots').iterdir() if p.is_dir())
  main = folder / 'refs' / 'main'
  if (
    main.is_file()
    and (named := folder / 'snapshots' / main.read_text('utf-8').strip()) in snapshots
  ):
    return named
  if len(snapshots) == 1:
    return snapshots[0]
  listed = ', '.join(str(p) for p in snapshots[:8]) or 'none'
  raise errors.UserError(
    f'{folder}: is a Hugging Face cache folder without one main snapshot. Snapshots: {listed}.'
  )


def raise_unloadable(path: str | Path) -> None:
  """Raise an error if a path is of a known kind without a loadable model.

  Raises:
    UserError: names the kind and the next step.
  """
  if sentence := diagnose(path, PATH_KINDS if Path(path).expanduser().exists() else MISSING_PATHS):
    raise errors.UserError(f'{path}: {sentence}')


def diagnose(path: str | Path, kinds: tuple[Kind, ...]) -> str | None:
  """Return the sentence of the first kind that a path is of, or None."""
  place = Path(path).expanduser()
  for kind in kinds:
    if (found := kind.find(place)) is not None:
      return kind.sentence.format(found=found, folder=place.parent)
  return None


def is_checkpoint(folder: Path) -> bool:
  """Return whether a folder is a tfm checkpoint, or a workdir with some."""
  return any(
    True for pattern in ('about', '*/about', 'checkpoints/*/about') for _ in folder.glob(pattern)
  )


def check_published(folder: Path) -> None:
  """Check that the config and tokenizer files of a published folder are not Git LFS pointers.

  Raises:
    UserError: a file is a Git LFS pointer, or config.json belongs to another library.
  """
  names = ['config.json', 'tokenizer.json', 'generation_config.json', 'tokenizer_config.json']
  if not (folder / 'tokenizer.json').is_file():
    names += [
      'tokenizer.model',
      'spiece.model',
      'sentencepiece.bpe.model',
      'source.spm',
      'vocab.json',
      'vocab.txt',
    ]
  for name in names:
    check_not_pointer(folder / name)
  try:
    values = json.loads((folder / CONFIG).read_text('utf-8'))
  except (OSError, ValueError):
    return
  if not isinstance(values, dict) or values.get('model_type'):
    return
  for field, library in _LIBRARIES.items():
    if field in values:
      raise errors.UserError(
        f'{folder / CONFIG}: is a config of {library} ({field}={values[field]!r}), which tfm does '
        f'not read. Expected '
        'the model_type of a model of transformers.'
      )


def check_not_pointer(path: Path) -> None:
  """Check that a file is not a Git LFS pointer.

  Raises:
    UserError: it is a pointer.
  """
  if is_pointer(path):
    raise errors.UserError(
      f'{path}: is a Git LFS pointer, not the file itself. Expected the file: run `git lfs pull`, '
      f'or download it again.'
    )


def no_weights_message(folder: Path) -> str:
  """Return the sentence about a folder with a config.json and without weights that are read."""
  return diagnose(folder, UNREADABLE_WEIGHTS) or f'holds no weights. {WEIGHTS}'
