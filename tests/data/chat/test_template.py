"""Chat templates match `apply_chat_template` of transformers."""

import dataclasses
import enum
import json
from typing import Any, Literal

import numpy as np
import pytest

from tests.data.chat.templates import CHATML, GROUNDED, LLAMA_3, QWEN_3, TEMPLATES
from tests.data.tokenizer.compare import theirs
from tests.data.tokenizer.folders import whole
from tfm.core.errors import UserError
from tfm.data.chat import ChatTemplate, no_template
from tfm.data.chat.tool_schema import schema_of
from tfm.data.tokenizer.published import read_tokenizer

USER = {'role': 'user', 'content': '  What is 2 < 3? "Ünï" 🙂\n'}
ANSWER = {'role': 'assistant', 'content': 'It is <b>true</b>.  '}
SYSTEM = {'role': 'system', 'content': 'Be brief.'}
CHATS = {'one': [USER], 'three': [USER, ANSWER, {'role': 'user', 'content': 'Why?'}]}


class Unit(enum.Enum):
  """Units of temperature."""

  CELSIUS = 'celsius'
  FAHRENHEIT = 'fahrenheit'


def weather(
  place: str, unit: Unit, days: int = 1, kind: Literal['short', 'long'] = 'short'
) -> dict[str, float]:
  """
  Tell the weather of a place.

  Args:
    place: The name of the place,
      and its country.
    unit: The unit (choices: ["celsius", "fahrenheit"])
    days: How many days ahead.
    kind: How much to tell.

  Returns:
    Numbers by name.
  """
  raise NotImplementedError


def convert(
  values: list[int | float], table: dict[str, Any], pair: tuple[int, str], extra: str | None = None
):
  """Convert values.

  Args:
    values: The values.
    table: A table.
    pair: A pair.
    extra: More.
  """


@pytest.fixture(scope='module')
def base(tmp_path_factory):
  folder = tmp_path_factory.mktemp('chat')
  whole(folder)
  return folder


def with_template(base, template, folder=None):
  """Write a template into the tokenizer_config.json of a folder.

  Args:
    base: The folder with the tokenizer.
    template: The chat template.
    folder: The folder to return. By default `base`.

  Returns:
    The folder.
  """
  path = base / 'tokenizer_config.json'
  config = json.loads(path.read_text()) | {'chat_template': template}
  path.write_text(json.dumps(config))
  return folder or base


@pytest.mark.oracle
@pytest.mark.parametrize('chat', sorted(CHATS))
@pytest.mark.parametrize('name', sorted(TEMPLATES))
def test_conversations_match_transformers(base, name, chat):
  folder = with_template(base, TEMPLATES[name])
  ours, expected, vocabulary = ChatTemplate.read(folder), theirs(folder), read_tokenizer(folder)
  chats = [CHATS[chat]] + ([[SYSTEM, *CHATS[chat]]] if name != 'gemma' else [])
  for messages in chats:
    for prompt in (True, False):
      text = expected.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
      assert ours.render(messages, add_generation_prompt=prompt) == text
    ids = expected.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert vocabulary.prompt(ours.render(messages), framed=False).tolist() == ids


@pytest.mark.oracle
@pytest.mark.parametrize('name', ['llama3', 'mistral', 'qwen3'])
def test_tools_match_transformers(base, name):
  folder = with_template(base, TEMPLATES[name])
  ours, expected = ChatTemplate.read(folder), theirs(folder)
  schema = {
    'type': 'function',
    'function': {'name': 'f', 'description': 'é <b>', 'parameters': {'type': 'object'}},
  }
  call = {
    'type': 'function',
    'function': {'name': 'weather', 'arguments': {'place': 'Köln', 'days': 2}},
  }
  with_call = [
    USER,
    {'role': 'assistant', 'content': '', 'tool_calls': [call]},
    {'role': 'tool', 'content': '"12"'},
  ]
  for messages in ([USER], with_call):
    for tools in ([schema], [weather, convert]):
      text = expected.apply_chat_template(
        messages, tools=tools, tokenize=False, add_generation_prompt=True
      )
      assert ours.render(messages, tools=tools) == text


@pytest.mark.oracle
@pytest.mark.parametrize('name', ['chatml', 'llama3', 'phi3', 'qwen3'])
@pytest.mark.parametrize('field', [True, 'content'])
def test_continued_messages_match_transformers(base, name, field):
  folder = with_template(base, TEMPLATES[name])
  ours, expected = ChatTemplate.read(folder), theirs(folder)
  for content in ('It is', 'It is ', '  It\nis'):
    messages = [USER, {'role': 'assistant', 'content': content}]
    text = expected.apply_chat_template(messages, tokenize=False, continue_final_message=field)
    assert ours.render(messages, continue_final_message=field) == text


@pytest.mark.oracle
def test_named_templates_and_variables_match_transformers(base):
  named = [{'name': 'default', 'template': QWEN_3}, {'name': 'tool_use', 'template': LLAMA_3}]
  folder = with_template(base, [*named, {'name': 'rag', 'template': GROUNDED}])
  ours, expected = ChatTemplate.read(folder), theirs(folder)
  render = lambda **options: expected.apply_chat_template([USER], tokenize=False, **options)
  assert ours.render([USER], enable_thinking=False) == render(
    add_generation_prompt=True, enable_thinking=False
  )
  assert ours.render([USER], tools=[weather]) == render(add_generation_prompt=True, tools=[weather])
  documents = [{'title': 'A', 'text': 'b'}]
  assert ours.render([USER], name='rag', documents=documents) == render(
    chat_template='rag', documents=documents
  )
  thought = [USER, {'role': 'assistant', 'content': 'x', 'reasoning': 'hm', 'tool_calls': None}]
  assert ours.render(thought) == expected.apply_chat_template(
    thought, tokenize=False, add_generation_prompt=True
  )


@pytest.mark.oracle
@pytest.mark.parametrize('tool', [weather, convert])
def test_schemas_of_functions_match_transformers(tool):
  from transformers.utils import get_json_schema

  assert schema_of(tool, 'tools[0]') == get_json_schema(tool)


def test_template_files_override_the_config(base, tmp_path):
  with_template(base, 'config')
  for path in base.iterdir():
    (tmp_path / path.name).write_bytes(path.read_bytes())
  assert ChatTemplate.read(tmp_path).render([USER]) == 'config'
  (tmp_path / 'chat_template.jinja').write_text('file')
  (tmp_path / 'additional_chat_templates').mkdir()
  (tmp_path / 'additional_chat_templates' / 'rag.jinja').write_text('more')
  found = ChatTemplate.read(tmp_path)
  assert (found.render([USER]), found.render([USER], name='rag')) == ('file', 'more')


def test_chat_template_json_of_older_folders_is_read(tmp_path):
  (tmp_path / 'chat_template.json').write_text(json.dumps({'chat_template': CHATML}))
  assert ChatTemplate.read(tmp_path).render([USER]).endswith('<|im_start|>assistant\n')
  (tmp_path / 'chat_template.json').unlink()
  assert ChatTemplate.read(tmp_path) is None


def test_templates_get_json_values():
  @dataclasses.dataclass
  class Image:
    width: int
    pixels: Any

  template = ChatTemplate({'default': '{{ messages[0].image }} {{ n + 1 }} {{ flag }}'})
  image = Image(3, np.zeros(2))
  text = template.render([{'role': 'user', 'image': image}], n=np.int64(2), flag=np.bool_(False))
  assert text == "{'width': 3, 'pixels': '<ndarray>'} 3 False"


@pytest.mark.parametrize(
  ('template', 'message'),
  [
    (
      "{{ raise_exception('no system role') }}",
      'the chat template rejects the conversation: no system role',
    ),
    ('{{ ().__class__.__mro__ }}', 'rejects the conversation: access to attribute'),
    (
      '{% set ns = namespace(_x=1) %}',
      "rejects the conversation: a namespace may not have the attribute '_x'",
    ),
    ('{{ messages.append(1) }}', 'rejects the conversation: '),
    ('{% if %}', r'invalid chat template: .* \(line 1\)\. Expected Jinja'),
    ('{{ messages[0].content + 1 }}', 'the chat template fails on the conversation'),
  ],
)
def test_invalid_templates_raise_errors(template, message):
  with pytest.raises(UserError, match=message):
    ChatTemplate({'default': template}).render([USER])


def test_invalid_conversations_raise_errors():
  template = ChatTemplate({'default': CHATML, 'rag': GROUNDED}, where='m')
  with pytest.raises(UserError, match=r'm: messages is empty\. Expected at least one message'):
    template.render([])
  with pytest.raises(
    UserError, match=r"m: messages\[1\] has no role \(\{'content': 'x'\}\)\. Expected"
  ):
    template.render([USER, {'content': 'x'}])
  with pytest.raises(UserError, match=r"unknown chat template 'tools'\. Expected 'default', 'rag'"):
    template.render([USER], name='tools')
  with pytest.raises(UserError, match=r"documents\[0\] is 'text'\. Expected a dict"):
    template.render([USER], name='rag', documents=['text'])
  with pytest.raises(
    UserError, match="continue_final_message=True: the final message has no 'content'"
  ):
    template.render([{'role': 'assistant'}], continue_final_message=True)
  with pytest.raises(
    UserError, match=r'm: has no chat template\. Expected an instruction-tuned model'
  ):
    raise no_template('m')


def test_invalid_tools_raise_errors():
  def bare(x: int):
    pass

  def untyped(x):
    """Do it."""

  def undescribed(x: int):
    """Do it."""

  def odd(x: bytes):
    """Do it.

    Args:
      x: A thing.
    """

  for tool, message in (
    (bare, 'the function bare has no docstring'),
    (untyped, 'untyped: the argument x has no type hint'),
    (undescribed, 'the docstring has no argument x'),
    (odd, "the type hint <class 'bytes'> has no JSON schema"),
    ('f', "is 'f'. Expected a JSON schema"),
  ):
    with pytest.raises(UserError, match=message):
      schema_of(tool, 'tools[0]')


def test_continued_message_ends_with_its_text():
  template = ChatTemplate({'default': CHATML})
  text = template.render(
    [USER, {'role': 'assistant', 'content': 'It is '}], continue_final_message=True
  )
  assert text.endswith('<|im_start|>assistant\nIt is ')
  parts = [{'role': 'assistant', 'content': [{'type': 'text', 'text': 'It'}]}]
  template = ChatTemplate(
    {'default': '{% for p in messages[0].content %}{{ p.text }}!{% endfor %}'}
  )
  assert template.render(parts, continue_final_message=True) == 'It'
