"""Conversations in files of JSON lines."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tfm.core import json_text
from tfm.core.errors import UserError
from tfm.data import readers

#: The names of roles in files with "from" and "value" (ShareGPT).
_ROLES = {'human': 'user', 'gpt': 'assistant', 'bing': 'assistant', 'chatgpt': 'assistant'}
_EXPECTED = 'Expected {"messages": [{"role": "user", "content": "..."}, ...]}.'


class Dialogue(NamedTuple):
  """A conversation.

  Attributes:
    messages: The turns, each with a role, a content and possibly other fields of a chat template.
    tools: JSON schemas of the functions that the model may call, or None.
    where: The file and the line, for errors.
  """

  messages: list[dict[str, Any]]
  tools: list[dict[str, Any]] | None
  where: str


def read_dialogues(path: Path) -> Iterator[Dialogue]:
  """Yield the conversations of a file, one for each line that is not empty.

  A line is a JSON object with "messages", a list of objects with "role" and "content", or with
  "conversations", a list of objects with "from" and "value". "tools" is optional.

  Args:
    path: The file.

  Raises:
    UserError: The file cannot be read, or a line is no conversation. The message has its number.
  """
  for number, line in enumerate(_lines(readers.text(path)), 1):
    if line.strip():
      yield _dialogue(line, f'data.files: {path} line {number}')


def _lines(parts: Iterable[str]) -> Iterator[str]:
  left = ''
  for part in parts:
    *lines, left = (left + part).split('\n')
    yield from lines
  yield left


def _dialogue(line: str, where: str) -> Dialogue:
  try:
    fields = json_text.parse(line)
  except ValueError as error:
    raise UserError(f'{where}: is not JSON ({error}). {_EXPECTED}') from error
  turns = None
  if isinstance(fields, dict):
    turns = fields.get('messages', fields.get('conversations'))
  if not isinstance(turns, list) or not turns:
    raise UserError(f'{where}: has no list of messages ({line.strip():.60}). {_EXPECTED}')
  messages = [_message(turn, f'{where}: message {i}') for i, turn in enumerate(turns, 1)]
  return Dialogue(messages, fields.get('tools') or None, where)


def _message(turn: Any, where: str) -> dict[str, Any]:
  if isinstance(turn, dict) and 'from' in turn and 'role' not in turn:
    turn = {'role': _ROLES.get(turn['from'], turn['from']), 'content': turn.get('value')}
  if not isinstance(turn, dict) or not isinstance(turn.get('role'), str):
    raise UserError(f'{where} has no role ({turn!r:.60}). {_EXPECTED}')
  if turn.get('content') is None and not turn.get('tool_calls'):
    raise UserError(f'{where} has no content ({turn!r:.60}). {_EXPECTED}')
  return turn
