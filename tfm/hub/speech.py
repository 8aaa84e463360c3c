"""What a speech model's decoder begins with, and the language of a recording."""

from collections.abc import Mapping
from typing import Any

from tfm.core import errors

_TASK = 'transcribe'


def decoder_prompt(
  given: Mapping[str, Any], language: str | None = None, task: str | None = None
) -> list[int]:
  """Return the ids before a transcript: start, language, task and `<|notimestamps|>`, as far as the
  model has them.

  Args:
    given: the fields of a `generation_config.json`.
    language: a code such as 'en', for a multilingual model.
    task: 'transcribe' or 'translate' (to English), for a multilingual model; by default the first.

  Raises:
    UserError: an unknown language or task, one for a model that knows none, or none for a
    multilingual model.
  """
  known, tasks = languages(given), given.get('task_to_id') or {}
  forced = [token for _, token in sorted(given.get('forced_decoder_ids') or [])]
  ids = [given['decoder_start_token_id']]
  if language is None and task is None and forced and None not in forced:
    ids += forced
  elif known and language is None:
    raise errors.UserError(
      f'generation_options: language is None, and the model knows {len(known)}. Expected '
      f'language=..., such as '
      f'{", ".join([*known][:4])}; tfm.generate.detect_language finds it.'
    )
  else:
    ids += [_id_of('language', language, known)] if language is not None or known else []
    ids += [_id_of('task', task or _TASK, tasks)] if task is not None or tasks else []
  silent = given.get('no_timestamps_token_id')
  return ids if silent is None or silent in ids else [*ids, silent]


def multilingual(given: Mapping[str, Any]) -> bool:
  """Return whether a model must be given a language: it knows several, and its file forces none."""
  forced = [token for _, token in given.get('forced_decoder_ids') or []]
  return bool(given.get('lang_to_id')) and (not forced or None in forced)


def languages(given: Mapping[str, Any]) -> dict[str, int]:
  """Return the token ids of a model's languages by their codes, such as 'en'; none if it is not
  multilingual.
  """
  return {_code(name): token for name, token in (given.get('lang_to_id') or {}).items()}


def _code(name: str) -> str:
  return name.removeprefix('<|').removesuffix('|>')


def _id_of(what: str, value: str | None, known: Mapping[str, int]) -> int:
  """Return the id of a language or task by its name, with or without its marks."""
  ids = {_code(name): token for name, token in known.items()}
  if not ids:
    raise errors.UserError(
      f'generation_options: {what}={value!r}, and the model has one {what} only. Expected None.'
    )
  if value is None or _code(value) not in ids:
    raise errors.UserError(f'generation_options: {errors.unknown(what, value, ids)}')
  return ids[_code(value)]
