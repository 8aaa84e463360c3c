"""Errors for paths that are neither a checkpoint of tfm nor a published folder."""

from pathlib import Path

from tfm.core import errors, json_text
from tfm.hub.path_kinds import (
  CONFIG,
  MISSING_PATHS,
  PATH_KINDS,
  UNREADABLE_WEIGHTS,
  WEIGHTS,
  Kind,
  is_pointer,
)

#: Field of a config.json without model_type -> the library that writes it.
_LIBRARIES = {
  '_class_name': 'diffusers',
  '_diffusers_version': 'diffusers',
  'architecture': 'timm',
  'model_cfg': 'OpenCLIP',
}


def resolve_path(path: str | Path) -> Path:
  """Return a path itself, or the snapshot of a Hugging Face cache folder.

  Raises:
    UserError: A cache folder has no snapshot, or several and no main one.
  """
  folder = Path(path).expanduser()
  if not (folder.name.startswith('models--') and (folder / 'snapshots').is_dir()):
    return folder
  snapshots = sorted(p for p in (folder / 'snapshots').iterdir() if p.is_dir())
  ref = folder / 'refs' / 'main'
  if ref.is_file():
    main = folder / 'snapshots' / ref.read_text('utf-8').strip()
    if main in snapshots:
      return main
  if len(snapshots) == 1:
    return snapshots[0]
  listed = ', '.join(str(p) for p in snapshots[:8]) or 'none'
  raise errors.UserError(
    f'{folder}: is a Hugging Face cache folder without a main snapshot. Expected a snapshot '
    f'folder: {listed}.'
  )


def raise_unloadable(path: str | Path) -> None:
  """Raise an error for a path of a known kind without a loadable model.

  Raises:
    UserError: The path is of such a kind. The message names it and the next step.
  """
  kinds = PATH_KINDS if Path(path).expanduser().exists() else MISSING_PATHS
  if sentence := diagnose(path, kinds):
    raise errors.UserError(f'{path}: {sentence}')


def diagnose(path: str | Path, kinds: tuple[Kind, ...]) -> str | None:
  """Return the error message of the first kind that matches a path, or None."""
  place = Path(path).expanduser()
  for kind in kinds:
    if (found := kind.find(place)) is not None:
      return kind.sentence.format(found=found, folder=place.parent).rstrip()
  return None


def is_checkpoint(folder: Path) -> bool:
  """Return whether a folder is a checkpoint of tfm, or a workdir with checkpoints."""
  patterns = ('about', '*/about', 'checkpoints/*/about')
  return any(path for pattern in patterns for path in folder.glob(pattern))


def check_published(folder: Path) -> None:
  """Check that the config and tokenizer files of a published folder are not Git LFS pointers.

  Raises:
    UserError: A file is a Git LFS pointer, or config.json belongs to another library.
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
    values = json_text.parse((folder / CONFIG).read_text('utf-8'))
  except (OSError, ValueError):
    return
  if not isinstance(values, dict) or values.get('model_type'):
    return
  for field, library in _LIBRARIES.items():
    if field in values:
      raise errors.UserError(
        f'{folder / CONFIG}: is a config of {library} ({field}={values[field]!r}), which tfm does '
        'not read. Expected the model_type of a model of transformers.'
      )


def check_not_pointer(path: Path) -> None:
  """Check that a file is not a Git LFS pointer.

  Raises:
    UserError: The file is a pointer.
  """
  if is_pointer(path):
    raise errors.UserError(
      f'{path}: is a Git LFS pointer, not the file itself. Expected the file: run `git lfs pull`, '
      'or download it again.'
    )


def no_weights_message(folder: Path) -> str:
  """Return the error message for a folder with config.json and no readable weights."""
  return diagnose(folder, UNREADABLE_WEIGHTS) or f'holds no weights. {WEIGHTS}'
