"""Chat templates of published folders, rendered as `apply_chat_template` of transformers 5.23.0
renders them.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
from pathlib import Path
import tempfile
from typing import Any

from tfm.core.errors import UserError
from tfm.data.tokenizer.published import special_texts
from tfm.data.tokenizer.published.folder import CONFIG, read_json
from tfm.hub.chat_data import sanitised, with_reasoning
from tfm.hub.chat_environment import compile_template
from tfm.hub.files import CHAT, FolderFiles
from tfm.hub.tool_schema import schema_of

Message = Mapping[str, Any]
#: What marks the end of a message that is to be continued.
_MARK = 'CONTINUE_FINAL_MESSAGE_TAG '
_DEFAULT, _TOOLS = 'default', 'tool_use'
_REASONING = ('reasoning_content', 'thinking', 'reasoning')


@dataclasses.dataclass(frozen=True)
class ChatTemplate:
  """The chat templates of a folder, and the special tokens that they write.

  Attributes:
    templates: Jinja templates by name. The default is 'default'.
    tokens: Special tokens by name, such as 'bos_token'.
    where: The folder, for errors.
  """

  templates: Mapping[str, str]
  tokens: Mapping[str, str] = dataclasses.field(default_factory=dict)
  where: str = 'chat template'

  @classmethod
  def read(cls, folder: str | Path) -> 'ChatTemplate | None':
    """Read the chat templates of a folder; None if it has none.

    They are in `chat_template.jinja` and `additional_chat_templates/*.jinja`, or else in
    `tokenizer_config.json`, or else in `chat_template.json`.

    Raises:
      UserError: a file cannot be read.
    """
    path = Path(folder).expanduser()
    found = (
      _of_files(path)
      or _of_config(read_json(path / CONFIG))
      or _of_config(read_json(path / 'chat_template.json'))
    )
    return cls(found, special_texts(path), str(path)) if found else None

  @classmethod
  def of_files(cls, files: FolderFiles) -> 'ChatTemplate | None':
    """Return the chat templates of a loaded model's files; None if it has none.

    Raises:
      UserError: a file cannot be read.
    """
    with tempfile.TemporaryDirectory() as folder:
      files.only(CHAT).write(Path(folder))
      found = cls.read(folder)
    return found and dataclasses.replace(found, where=str(files.folder))

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
    """Return a conversation in the format of the model's training data.

    Its ids are `vocabulary.prompt(text, framed=False)`: the template writes the special tokens.

    Args:
      messages: The turns. Each has a 'role', and a 'content' or other fields of the template.
      tools: JSON schemas of functions that the model may call, or functions with type hints and a
      Google docstring.
      documents: Texts to answer from, each with a 'title' and a 'text'.
      add_generation_prompt: End with the beginning of the model's answer. Ignored where the final
      message is continued.
      continue_final_message: End inside the final message, so that the model continues it: in the
        field of this name, or in 'content' if True.
      name: The name of the template, if the folder has several.
      **variables: Other variables of the template, such as `enable_thinking`.

    Raises:
      UserError: a message without a role, an unknown template, or a conversation that the template
      refuses.
    """
    template = self._template(name, tools)
    chat = self._chat(messages)
    field = self._continued(chat, template, continue_final_message)
    values = {**self.tokens, **variables}
    schemas = (
      None
      if tools is None
      else [schema_of(tool, f'{self.where}: tools[{i}]') for i, tool in enumerate(tools)]
    )
    text = self._rendered(
      template,
      messages=chat,
      tools=sanitised(schemas),
      documents=sanitised(self._documents(documents)),
      add_generation_prompt=add_generation_prompt and field is None,
      **sanitised(values),
    )
    return text if field is None else self._cut(text, field)

  def _template(self, name: str | None, tools: Any) -> str:
    if name is None:
      name = _TOOLS if tools is not None and _TOOLS in self.templates else _DEFAULT
    if name not in self.templates:
      known = ', '.join(map(repr, sorted(self.templates)))
      raise UserError(f'{self.where}: unknown chat template {name!r}. Expected one of {known}.')
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
      found.append(
        with_reasoning(
          {key: value for key, value in values.items() if value is not None}, _REASONING
        )
      )
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
    """Mark the end of the final message's text where it is to be continued, and return that text."""
    if field is False:
      return None
    name = field if isinstance(field, str) else 'content'
    last = chat[-1]
    text = last.get(name)
    fields = [f for f in _REASONING if last.get(f) == text] if name in _REASONING else [name]
    if text is None or not any(f in template for f in fields):
      raise UserError(
        f'{self.where}: continue_final_message={field!r}: the final message has no {name!r} that '
        f'the template reads. '
        'Expected a final message to continue.'
      )
    if isinstance(text, str):
      last.update(dict.fromkeys(fields, text + _MARK))
      return text
    block = next((b for b in reversed(text) if isinstance(b, dict) and 'text' in b), None)
    if block is None:
      raise UserError(
        f'{self.where}: continue_final_message: the final message has no text. Expected a text to '
        f'continue.'
      )
    found = block['text']
    block['text'] += _MARK
    return found

  def _cut(self, text: str, final: str) -> str:
    """Return the text up to the mark, which a template may have trimmed."""
    at = text.rfind(_MARK.strip())
    if at < 0 or final.strip() not in text:
      raise UserError(
        f'{self.where}: continue_final_message: the template leaves out the final message '
        f'({final.strip()[:60]!r}). '
        'Expected a message that it renders in full.'
      )
    return text[:at] if text[at:].startswith(_MARK) else text[:at].rstrip()

  def _rendered(self, template: str, **values: Any) -> str:
    import jinja2

    try:
      return _compiled(template).render(**values)
    except jinja2.exceptions.TemplateSyntaxError as error:
      raise UserError(
        f'{self.where}: its chat template is not Jinja: {error.message} (line {error.lineno}).'
      ) from error
    except jinja2.exceptions.TemplateError as error:
      raise UserError(
        f'{self.where}: its chat template refuses the conversation: {error.message}'
      ) from error
    except (TypeError, ValueError, KeyError, AttributeError) as error:
      raise UserError(
        f'{self.where}: its chat template fails on the conversation: {error}.'
      ) from error


@functools.lru_cache(maxsize=16)
def _compiled(template: str) -> Any:
  return compile_template(template)


def no_template(where: str) -> UserError:
  """Return the error for a model without a chat template."""
  return UserError(
    f'{where}: has no chat template. Expected an instruction-tuned model; for others give the '
    f'whole prompt as text.'
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
  given = config.get('chat_template')
  if isinstance(given, str):
    return {_DEFAULT: given}
  if isinstance(given, list):
    return {entry['name']: entry['template'] for entry in given}
  return dict(given or {})


__all__ = ['ChatTemplate', 'Message', 'no_template']
