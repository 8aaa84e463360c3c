"""The answers of the model in a rendered conversation."""

from collections.abc import Mapping, Sequence
import functools
from typing import Any, NamedTuple

from tfm.data.chat.template import ChatTemplate, Message

#: The role of the messages that the model writes.
ASSISTANT = 'assistant'


class Rendered(NamedTuple):
  """A rendered conversation.

  Attributes:
    text: The text.
    answers: The start and end of each answer in the text, with the end of its turn.
    missing: The number of answers without a known place. The template renders them differently once
      other messages follow.
  """

  text: str
  answers: list[tuple[int, int]]
  missing: int = 0


def render_answers(
  template: ChatTemplate,
  messages: Sequence[Message],
  tools: Sequence[Mapping[str, Any]] | None = None,
) -> Rendered:
  """Render a conversation, and find the answers of the model in it.

  An answer starts after the prompt of `tfm.load(...).chat`, and ends with its message. If an answer
  is not found this way, the marks `{% generation %}` of the template are used for the whole
  conversation.

  Args:
    template: The chat template.
    messages: The turns.
    tools: JSON schemas of the functions that the model may call.

  Returns:
    The text, and the places of the answers in it.

  Raises:
    UserError: The template rejects the conversation.
  """
  render = functools.partial(template.render, tools=tools)
  text = render(messages, add_generation_prompt=False)
  found, missing = [], 0
  for i, message in enumerate(messages):
    if message['role'] != ASSISTANT:
      continue
    start = render(messages[:i], add_generation_prompt=True) if i else ''
    end = render(messages[: i + 1], add_generation_prompt=False)
    end = next((e for e in _ends(end, template) if text.startswith(e)), '')
    if text.startswith(start) and len(start) < len(end) and i:
      found.append((len(start), len(end)))
    else:
      missing += 1
  if missing and (marked := template.generated(messages, tools)):
    return Rendered(text, marked)
  return Rendered(text, found, missing)


def _ends(text: str, template: ChatTemplate) -> list[str]:
  """Return a rendered conversation, with and without a special token after the last message."""
  tokens = filter(None, template.tokens.values())
  return [text, *(text.removesuffix(token) for token in tokens if text.endswith(token))]
