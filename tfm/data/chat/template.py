"""Chat templates.

The rendered text equals that of `apply_chat_template` in transformers 5.23.0.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
from pathlib import Path
import re
from typing import Any

from tfm.core.errors import UserError
from tfm.data.chat.environment import END, START, compile_template
from tfm.data.chat.tool_schema import schema_of
from tfm.data.chat.values import sanitised, with_reasoning
from tfm.data.tokenizer.published import special_texts
from tfm.data.tokenizer.published.folder import CONFIG, read_json

Message = Mapping[str, Any]
#: A template for tokenizers without one (github.com/openai/openai-python/blob/v0.28.1/chatml.md).
CHATML = (
  '{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n'
  '{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}'
)
#: Marks the end of a message that the model continues.
_MARK = 'CONTINUE_FINAL_MESSAGE_TAG '
_DEFAULT, _TOOLS = 'default', 'tool_use'
_GENERATION = re.compile(r'\{%[-+]?\s*generation\s*[-+]?%\}')
_REASONING = ('reasoning_content', 'thinking', 'reasoning')


@dataclasses.dataclass(frozen=True)
class ChatTemplate:
  """The chat templates of a folder and the special tokens in them.

  Attributes:
    templates: Jinja templates by name. The standard one is 'default'.
    tokens: Special tokens by name, such as 'bos_token'.
    where: The folder, for errors.
    marks: Whether to write marks around the parts in `{% generation %}` (see `generated`).
  """

  templates: Mapping[str, str]
  tokens: Mapping[str, str] = dataclasses.field(default_factory=dict)
  where: str = 'chat template'
  marks: bool = False

  @classmethod
  def read(cls, folder: str | Path) -> 'ChatTemplate | None':
    """Read the chat templates of a folder, None if it has none.

    The sources, in order, are `chat_template.jinja` with `additional_chat_templates/*.jinja`,
    `tokenizer_config.json` and `chat_template.json`.

    Raises:
      UserError: A file cannot be read.
    """
    path = Path(folder).expanduser()
    found = (
      _of_files(path)
      or _of_config(read_json(path / CONFIG))
      or _of_config(read_json(path / 'chat_template.json'))
    )
    return cls(found, special_texts(path), str(path)) if found else None

  def render(
    self,
    messages: Sequence[Message],
    *,
    tools: Sequence[Mapping[str, Any] | Callable[..., Any]] | None = None,
    documents: Sequence[Mapping[str, Any]] | None = None,
    add_generation_prompt: bool = True,
    continue_final_message: bool | str = False,
    name: str | None = None,
    **variables: Any,
  ) -> str:
    """Render a conversation in the format of the model's training data.

    Encode the text with `vocabulary.prompt(text, framed=False)`, because the template writes the
    special tokens.

    Args:
      messages: The turns. Each has a 'role', and a 'content' or other fields of the template.
      tools: Functions that the model may call: JSON schemas, or Python functions with type hints
        and a Google docstring.
      documents: Texts for retrieval-augmented answers, each with a 'title' and a 'text'.
      add_generation_prompt: Whether to append the start of the model's reply. Ignored with
        `continue_final_message`.
      continue_final_message: Whether the text ends inside the final message, for the model to
        continue: in the field of this name, or in 'content' if True.
      name: The name of the template, if the folder has several.
      **variables: Other template variables, such as `enable_thinking`.

    Returns:
      The rendered text.

    Raises:
      UserError: A message has no role, the template is unknown, or it rejects the conversation.
    """
    template = self._template(name, tools)
    chat = self._chat(messages)
    field = self._continued(chat, template, continue_final_message)
    values = {**self.tokens, **variables}
    schemas = None
    if tools is not None:
      schemas = [schema_of(tool, f'{self.where}: tools[{i}]') for i, tool in enumerate(tools)]
    text = self._rendered(
      template,
      messages=chat,
      tools=sanitised(schemas),
      documents=sanitised(self._documents(documents)),
      add_generation_prompt=add_generation_prompt and field is None,
      **sanitised(values),
    )
    return text if field is None else self._cut(text, field)

  def generated(
    self,
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any] | Callable[..., Any]] | None = None,
  ) -> list[tuple[int, int]] | None:
    """Return the text that the template marks as the model's with `{% generation %}`.

    Args:
      messages: The turns, as in `render`.
      tools: See `render`.

    Returns:
      The start and end of each marked part of `render(messages, add_generation_prompt=False)`, or
      None if the template has no marks.

    Raises:
      UserError: See `render`.
    """
    if not _GENERATION.search(self._template(None, tools)):
      return None
    text = dataclasses.replace(self, marks=True).render(
      messages, tools=tools, add_generation_prompt=False
    )
    ranges, length = [], 0
    for before, body in zip(*[iter(re.split(f'[{START}{END}]', text)[:-1])] * 2, strict=True):
      start = length + len(before)
      length = start + len(body)
      ranges.append((start, length))
    return ranges

  def _template(self, name: str | None, tools: Any) -> str:
    if name is None:
      name = _TOOLS if tools is not None and _TOOLS in self.templates else _DEFAULT
    if name not in self.templates:
      known = ', '.join(map(repr, sorted(self.templates)))
      raise UserError(f'{self.where}: unknown chat template {name!r}. Expected {known}.')
    return self.templates[name]

  def _chat(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
    if not messages:
      raise UserError(f'{self.where}: messages is empty. Expected at least one message.')
    found = []
    for i, message in enumerate(messages):
      values = sanitised(message)
      if not isinstance(values, dict) or 'role' not in values:
        raise UserError(
          f'{self.where}: messages[{i}] has no role ({str(message)[:60]}). Expected '
          f"{{'role': 'user', 'content': ...}}."
        )
      fields = {key: value for key, value in values.items() if value is not None}
      found.append(with_reasoning(fields, _REASONING))
    return found

  def _documents(self, documents: Any) -> Any:
    for i, document in enumerate(documents or ()):
      if not isinstance(document, Mapping):
        raise UserError(
          f"{self.where}: documents[{i}] is {document!r:.60}. Expected a dict of a 'title' and a "
          f"'text'."
        )
    return documents

  def _continued(self, chat: list[dict[str, Any]], template: str, field: bool | str) -> str | None:
    """Append a mark to the final message that the model continues; return its text."""
    if field is False:
      return None
    name = field if isinstance(field, str) else 'content'
    last = chat[-1]
    text = last.get(name)
    fields = [name]
    if name in _REASONING:
      fields = [f for f in _REASONING if last.get(f) == text]
    if text is None or not any(f in template for f in fields):
      raise UserError(
        f'{self.where}: continue_final_message={field!r}: the final message has no {name!r} that '
        'the template uses. Expected a final message to continue.'
      )
    if isinstance(text, str):
      last.update(dict.fromkeys(fields, text + _MARK))
      return text
    block = next((b for b in reversed(text) if isinstance(b, dict) and 'text' in b), None)
    if block is None:
      raise UserError(
        f'{self.where}: continue_final_message: the final message has no text. Expected text to '
        'continue.'
      )
    found = block['text']
    block['text'] += _MARK
    return found

  def _cut(self, text: str, final: str) -> str:
    """Return the text before the mark, with or without the trailing space of the message."""
    at = text.rfind(_MARK.strip())
    if at < 0 or final.strip() not in text:
      raise UserError(
        f'{self.where}: continue_final_message: the template omits the final message '
        f'({final.strip()[:60]!r}). Expected a message that it renders in full.'
      )
    return text[:at] if text[at:].startswith(_MARK) else text[:at].rstrip()

  def _rendered(self, template: str, **values: Any) -> str:
    import jinja2

    try:
      return _compiled(template, self.marks).render(**values)
    except jinja2.exceptions.TemplateSyntaxError as error:
      raise UserError(
        f'{self.where}: invalid chat template: {error.message} (line {error.lineno}). Expected '
        'Jinja.'
      ) from error
    except jinja2.exceptions.TemplateError as error:
      raise UserError(
        f'{self.where}: the chat template rejects the conversation: {error.message}'
      ) from error
    except (TypeError, ValueError, KeyError, AttributeError) as error:
      raise UserError(
        f'{self.where}: the chat template fails on the conversation: {error}.'
      ) from error


@functools.lru_cache(maxsize=16)
def _compiled(template: str, marks: bool) -> Any:
  return compile_template(template, marks)


def no_template(where: str) -> UserError:
  """Return the error for a model without a chat template."""
  return UserError(
    f'{where}: has no chat template. Expected an instruction-tuned model, or a text prompt in '
    'place of a conversation.'
  )


def _of_files(folder: Path) -> dict[str, str]:
  more = sorted((folder / 'additional_chat_templates').glob('*.jinja'))
  found = {path.stem: _text(path) for path in more}
  default = folder / 'chat_template.jinja'
  return found | ({_DEFAULT: _text(default)} if default.is_file() else {})


def _text(path: Path) -> str:
  try:
    return path.read_text('utf-8')
  except UnicodeDecodeError as error:
    raise UserError(
      f'{path.name}: is not UTF-8 text (byte {error.start}). Expected a Jinja template.'
    ) from None


def _of_config(config: Mapping[str, Any]) -> dict[str, str]:
  templates = config.get('chat_template')
  if isinstance(templates, str):
    return {_DEFAULT: templates}
  if isinstance(templates, list):
    return {entry['name']: entry['template'] for entry in templates}
  return dict(templates or {})
