"""Read tokenizer settings and special tokens from a published folder."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from tfm.core import errors, json_text

#: The special tokens that every tokenizer may have.
NAMED = ('bos_token', 'eos_token', 'unk_token', 'sep_token', 'pad_token', 'cls_token', 'mask_token')
CONFIG, MODEL, WHOLE = 'tokenizer_config.json', 'config.json', 'tokenizer.json'


def read_json(path: Path) -> dict[str, Any]:
  """Return the object of a JSON file, or an empty one if there is no file.

  Raises:
    UserError: The file does not hold a JSON object.
  """
  if not path.is_file():
    return {}
  try:
    content = json_text.parse(path.read_text('utf-8'))
  except (OSError, ValueError) as error:
    raise errors.UserError(f'{path}: cannot be read ({error}). Expected a JSON object.') from error
  if not isinstance(content, dict):
    raise errors.UserError(f'{path}: holds {type(content).__name__}. Expected a JSON object.')
  return content


def token(value: Any) -> str | AddedToken | None:
  """Parse a special token: its text, or an object with text and flags."""
  if isinstance(value, Mapping):
    flags = ('lstrip', 'normalized', 'rstrip', 'single_word', 'special')
    return AddedToken(value['content'], **{name: value[name] for name in flags if name in value})
  return value


def read_fields(folder: Path) -> dict[str, Any]:
  """Return the settings of a folder's tokenizer, with special and added tokens.

  `added_tokens_decoder` holds the added tokens by id, from `tokenizer_config.json`. Folders without
  it have them in `special_tokens_map.json`, `added_tokens.json` and `tokenizer.json`.
  """
  fields = read_json(folder / CONFIG)
  fields.pop('tokenizer_class', None)
  fields.pop('chat_template', None)
  if (folder / WHOLE).is_file():
    # The template of tokenizer.json replaces these settings.
    fields.pop('add_bos_token', None)
    fields.pop('add_eos_token', None)
  _merge_extras(fields)
  entries = fields.pop('added_tokens_decoder', None)
  if entries is not None:
    added = {int(number): token(value) for number, value in entries.items()}
  else:
    _read_map(fields, folder)
    added = dict(_older(fields, folder))
  for name in NAMED:
    if name in fields:
      fields[name] = token(fields[name])
  by_text = {str(value): value for value in added.values()}
  for name in NAMED:
    if fields.get(name) is not None:
      fields[name] = by_text.get(str(fields[name]), fields[name])
  fields['added_tokens_decoder'] = added
  return fields


def _merge_extras(fields: dict[str, Any]) -> None:
  """Collect the named special tokens of the model in one field, and unnamed ones in another."""
  if not fields.get('extra_special_tokens') and 'additional_special_tokens' in fields:
    fields['extra_special_tokens'] = fields.pop('additional_special_tokens')
  named = {}
  for name in list(fields):
    if name.endswith('_token') and name not in NAMED and _is_token(fields[name]):
      named[name] = fields.pop(name)
  if isinstance(fields.get('extra_special_tokens'), Mapping):
    named |= fields.pop('extra_special_tokens')
  if named:
    fields['model_specific_special_tokens'] = {name: token(value) for name, value in named.items()}
  for name in ('extra_special_tokens', 'additional_special_tokens'):
    if isinstance(fields.get(name), list):
      fields[name] = [token(value) for value in fields[name]]


def _is_token(value: Any) -> bool:
  return isinstance(value, str) or (
    isinstance(value, Mapping) and value.get('__type') == 'AddedToken'
  )


def _read_map(fields: dict[str, Any], folder: Path) -> None:
  """Read the special tokens of `special_tokens_map.json`."""
  for name, value in read_json(folder / 'special_tokens_map.json').items():
    if name == 'extra_special_tokens' and isinstance(value, list):
      known = list(fields.get(name) or [])
      texts = {str(t) for t in known}
      fields[name] = known + [token(_special(t)) for t in value if str(token(t)) not in texts]
    elif isinstance(value, list):
      fields[name] = [token(t) for t in value]
    else:
      fields[name] = token(_special(value))


def _special(value: Any) -> Any:
  return {**value, 'special': True} if isinstance(value, Mapping) else value


def _older(fields: Mapping[str, Any], folder: Path) -> Iterator[tuple[int, AddedToken]]:
  """Yield (id, token) of `added_tokens.json`, then of `tokenizer.json`."""
  special = {str(fields[name]) for name in NAMED if fields.get(name)}
  special |= {str(text) for text in fields.get('extra_special_tokens') or []}
  for text, number in read_json(folder / 'added_tokens.json').items():
    yield int(number), AddedToken(text, normalized=text not in special, special=text in special)
  for entry in read_json(folder / WHOLE).get('added_tokens', ()):
    found = token(entry)
    assert isinstance(found, AddedToken)
    yield entry['id'], found
