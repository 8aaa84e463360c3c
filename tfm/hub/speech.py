"""What a speech model's decoder begins with, and the language of a recording."""

from collections.abc import Mapping
from typing import Any

from tfm.core import errors
from tfm.generate import generate
from tfm.hub.tokens import GENERATION

_TASK = 'transcribe'


def decoder_prompt(given: Mapping[str, Any], language: str | None = None, task: str | None = None) -> list[int]:
  """Return the ids before a transcript: start, language, task and `<|notimestamps|>`, as far as the model has them.

  Args:
    given: the fields of a `generation_config.json`.
    language: a code such as 'en', for a multilingual model.
    task: 'transcribe' or 'translate' (to English), for a multilingual model; by default the first.

  Raises:
    UserError: an unknown language or task, one for a model that knows none, or none for a multilingual model.
  """
  languages, tasks = given.get('lang_to_id') or {}, given.get('task_to_id') or {}
  forced = [token for _, token in sorted(given.get('forced_decoder_ids') or [])]
  ids = [given['decoder_start_token_id']]
  if language is None and task is None and forced and None not in forced:
    ids += forced
  elif languages and language is None:
    raise errors.UserError(
      f'generation_options: language is None, and the model knows {len(languages)}. Expected language=..., such as '
      f'{", ".join(map(_code, [*languages][:4]))}; tfm.hub.detect_language finds it.'
    )
  else:
    ids += [_id_of('language', language, languages)] if language is not None or languages else []
    ids += [_id_of('task', task or _TASK, tasks)] if task is not None or tasks else []
  silent = given.get('no_timestamps_token_id')
  return ids if silent is None or silent in ids else [*ids, silent]


def multilingual(given: Mapping[str, Any]) -> bool:
  """Return whether a model must be given a language: it knows several, and its file forces none."""
  forced = [token for _, token in given.get('forced_decoder_ids') or []]
  return bool(given.get('lang_to_id')) and (not forced or None in forced)


def detect_language(m: Any, features: Any, **options: Any) -> list[str]:
  """Return the most probable language of each recording, as a code such as 'en'.

  Args:
    m: a multilingual model, as `tfm.load` returns it.
    features: what its processor returns, `tfm.generate`'s prompts.
    **options: of `tfm.generate`, such as `run`.

  Raises:
    UserError: the folder of the model named no languages.
  """
  fields = (m.tokens or {}).get(GENERATION, {})
  languages = {token: _code(name) for name, token in (fields.get('lang_to_id') or {}).items()}
  if not languages:
    raise errors.UserError(
      f'detect_language: {GENERATION} of the model names no languages (lang_to_id). Expected a multilingual model.'
    )
  start = fields['decoder_start_token_id']
  settings = options | {'temperature': 0, 'max_new_tokens': 1, 'allowed': sorted(languages), 'decoder_start': start}
  rows = generate(m.spec, m.params, features, eos=(), **settings)
  return [languages[row[0]] for row in rows]


def _code(name: str) -> str:
  return name.removeprefix('<|').removesuffix('|>')


def _id_of(what: str, value: str | None, known: Mapping[str, int]) -> int:
  """Return the id of a language or task by its name, with or without its marks."""
  ids = {_code(name): token for name, token in known.items()}
  if not ids:
    raise errors.UserError(f'generation_options: {what}={value!r}, and the model has one {what} only. Expected None.')
  if value is None or _code(value) not in ids:
    raise errors.UserError(f'generation_options: {errors.unknown(what, value, ids)}')
  return ids[_code(value)]
