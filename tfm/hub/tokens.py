"""The numbers of special tokens that a published folder names, kept for the folder that is written again."""

from collections.abc import Mapping
import json
from pathlib import Path
from typing import Any

from tfm.core import errors

#: file -> field -> number, numbers (by name, of languages and tasks) or null, as they stand there.
Tokens = Mapping[str, Mapping[str, Any]]

CONFIG, GENERATION = 'config.json', 'generation_config.json'
#: In a checkpoint of ours.
KEPT = 'tokens.json'

_FIELDS = (
  'bos_token_id', 'eos_token_id', 'pad_token_id', 'unk_token_id', 'sep_token_id', 'cls_token_id', 'mask_token_id',
  'decoder_start_token_id', 'forced_bos_token_id', 'forced_eos_token_id', 'forced_decoder_ids', 'suppress_tokens',
  'begin_suppress_tokens', 'no_timestamps_token_id', 'is_multilingual', 'lang_to_id', 'task_to_id',
)  # fmt: skip


def read_tokens(folder: Path) -> dict[str, dict[str, Any]]:
  """What `config.json` and `generation_config.json` say of special tokens, or what a checkpoint of ours kept of that.

  Raises: UserError for files that are no JSON.
  """
  if (kept := folder / 'about' / KEPT).is_file():
    return fields_of(kept)
  files = {name: fields_of(folder / name) for name in (CONFIG, GENERATION) if (folder / name).is_file()}
  return {name: {f: given[f] for f in _FIELDS if f in given} for name, given in files.items()}


def said(tokens: Tokens, values: Mapping[str, Any]) -> dict[str, Any]:
  """Return the fields of `tokens` for a config of these values; a number replaces the family's, null does not."""
  given = tokens.get(CONFIG, {})
  return {name: value for name, value in given.items() if value is not None or values.get(name) is None}


def write_tokens(folder: Path, tokens: Tokens) -> None:
  """Writes the `generation_config.json` of a published folder, where there was one that says something."""
  if given := tokens.get(GENERATION):
    (folder / GENERATION).write_text(json.dumps(given, indent=2, sort_keys=True) + '\n', 'utf-8')


def fields_of(path: Path) -> dict[str, Any]:
  """What a JSON file of named values holds.

  Raises: UserError for one that holds none.
  """
  try:
    found = json.loads(path.read_text('utf-8'))
    if isinstance(found, dict):
      return found
    raise ValueError('it holds no fields')
  except (OSError, ValueError) as error:
    raise errors.UserError(f'{path}: is no config: {error}.') from error
