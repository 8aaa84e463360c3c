"""Decoder prompts and languages of speech models."""

from collections.abc import Mapping
from typing import Any

from tfm.core import errors

_TASK = 'transcribe'


def decoder_prompt(
  config: Mapping[str, Any], language: str | None = None, task: str | None = None
) -> list[int]:
  """Return the token ids before a transcript.

  They are the start token, language, task and `<|notimestamps|>`, if the model has them.

  Args:
    config: The fields of a `generation_config.json`.
    language: The language of a multilingual model, such as 'en'.
    task: The task of a multilingual model: 'transcribe' (the default) or 'translate' to English.

  Returns:
    The ids of the decoder prompt.

  Raises:
    UserError: The language or task is unknown, is missing for a multilingual model, or is given
      for another model.
  """
  known, tasks = languages(config), config.get('task_to_id') or {}
  forced = [token for _, token in sorted(config.get('forced_decoder_ids') or [])]
  ids = [config['decoder_start_token_id']]
  if language is None and task is None and forced and None not in forced:
    ids += forced
  elif known and language is None:
    raise errors.UserError(
      f'generation_options: language is None, but the model has {len(known)} languages. Expected '
      f'a code such as {", ".join([*known][:4])}. tfm.generate.detect_language detects it.'
    )
  else:
    ids += [_id_of('language', language, known)] if language is not None or known else []
    ids += [_id_of('task', task or _TASK, tasks)] if task is not None or tasks else []
  silent = config.get('no_timestamps_token_id')
  return ids if silent is None or silent in ids else [*ids, silent]


def multilingual(config: Mapping[str, Any]) -> bool:
  """Return whether a model needs a language: it has several and its config forces none."""
  forced = [token for _, token in config.get('forced_decoder_ids') or []]
  return bool(config.get('lang_to_id')) and (not forced or None in forced)


def languages(config: Mapping[str, Any]) -> dict[str, int]:
  """Return the token ids of a model's languages by code, such as 'en'.

  The result is empty for models that are not multilingual.
  """
  return {_code(name): token for name, token in (config.get('lang_to_id') or {}).items()}


def _code(name: str) -> str:
  return name.removeprefix('<|').removesuffix('|>')


def _id_of(what: str, value: str | None, known: Mapping[str, int]) -> int:
  """Return the id of a language or task by name, such as 'en' or '<|en|>'."""
  ids = {_code(name): token for name, token in known.items()}
  if not ids:
    raise errors.UserError(
      f'generation_options: {what}={value!r}, but the model has only one {what}. Expected None.'
    )
  if value is None or _code(value) not in ids:
    raise errors.UserError(f'generation_options: {errors.unknown(what, value, ids)}')
  return ids[_code(value)]
