"""Conversations with a chat model, for `tfm generate --chat`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import json
import sys
from typing import Any

from tfm.hub import Loaded

#: `(model, ids of the conversation) -> pieces of the reply`.
Reply = Callable[[Loaded, Sequence[int]], Iterator[str]]


def converse(
  m: Loaded, prompts: Sequence[str], fields: Mapping[str, Any], reply: Reply, as_json: bool
) -> None:
  """Print the reply to each prompt; without prompts, hold a conversation.

  Args:
    m: The model, its parameters prepared for decoding.
    prompts: Messages, each of a separate conversation. Without any, the message is the standard
      input, or each line typed at a terminal.
    fields: `system` (a text or None), and `tools` and `variables` as in `Loaded.chat_prompt`.
    reply: Generates a reply.
    as_json: Whether to print a JSON object per reply.

  Raises:
    UserError: The model has no chat template, or the template rejects the messages.
  """
  system = fields['system']
  arguments = {name: value for name, value in fields.items() if name != 'system'}
  before = [] if system is None else [{'role': 'system', 'content': system}]
  if not prompts and sys.stdin.isatty():
    _talk(m, before, arguments, reply)
    return
  for prompt in prompts or [sys.stdin.read()]:
    ids = m.chat_prompt([*before, {'role': 'user', 'content': prompt}], **arguments)
    if as_json:
      record = {'prompt': prompt, 'text': ''.join(reply(m, ids))}
      print(json.dumps(record, ensure_ascii=False), flush=True)
    else:
      _print(reply(m, ids))


def _talk(
  m: Loaded, messages: list[dict[str, str]], arguments: Mapping[str, Any], reply: Reply
) -> None:
  """Answer each typed line, until an empty line or the end of the input (Ctrl-D)."""
  print('Type a message. An empty line ends the conversation.')
  while True:
    try:
      line = input('> ')
    except EOFError:
      print()
      return
    if not line.strip():
      return
    messages = [*messages, {'role': 'user', 'content': line}]
    text = _print(reply(m, m.chat_prompt(messages, **arguments)))
    messages = [*messages, {'role': 'assistant', 'content': text}]


def _print(pieces: Iterator[str]) -> str:
  """Print a reply piece by piece, and return it."""
  text = ''
  for piece in pieces:
    print(piece, end='', flush=True)
    text += piece
  print()
  return text
