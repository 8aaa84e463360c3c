"""Chat with a loaded model: `m.chat` and `tfm generate --chat`."""

import io
import json

import pytest

from tests.hub.folders import chat_folder
import tfm
from tfm.cli import main
from tfm.core import errors

USER = [{'role': 'user', 'content': 'the cat'}]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return chat_folder(tmp_path_factory.mktemp('chat') / 'model')


def test_chat_prompt_has_special_tokens_as_single_ids(folder):
  m = tfm.load(folder)
  inner = m.tokenizer.inner
  ids = m.chat_prompt(USER)
  assert ids[0] == inner.token_to_id('<|im_start|>')
  assert ids.count(inner.token_to_id('<|im_end|>')) == 1
  assert inner.decode(ids, skip_special_tokens=False).startswith(
    '<|im_start|>user\nthe cat<|im_end|>\n'
  )


def test_reply_is_the_decoded_continuation(folder):
  m = tfm.load(folder)
  ids = m.chat_prompt(USER)
  (new,) = m.generate([ids], temperature=0, max_new_tokens=6, eos=())
  assert m.chat(USER, temperature=0, max_new_tokens=6, eos=()) == m.tokenizer.decode(new)
  ended = m.chat(USER, temperature=0, max_new_tokens=6, eos=new[3])
  assert ended == m.tokenizer.decode(new[: new.index(new[3])])


def test_reply_ends_with_the_tokenizer_end(tmp_path):
  """The tokenizer's end token also ends a reply if generation_config.json has another one."""
  folder = chat_folder(tmp_path / 'model')
  (folder / 'generation_config.json').write_text('{"eos_token_id": [5]}')
  m = tfm.load(folder)
  assert m.chat_options([], {})['eos'] == (5, m.tokenizer.inner.token_to_id('<|im_end|>'))
  assert m.chat_options([], {'eos': 7})['eos'] == 7


def test_continued_message_keeps_its_space(folder):
  m = tfm.load(folder)
  turns = [*USER, {'role': 'assistant', 'content': 'the'}]
  ids = m.chat_prompt(turns, continue_final_message=True)
  text = m.tokenizer.inner.decode(ids, skip_special_tokens=False)
  assert text.endswith('<|im_start|>assistant\nthe')
  (new,) = m.generate([ids], temperature=0, max_new_tokens=4, eos=())
  whole = m.tokenizer.decode([*ids, *new])
  reply = m.chat(turns, continue_final_message=True, temperature=0, max_new_tokens=4, eos=())
  assert whole == m.tokenizer.decode(ids) + reply


def test_model_without_template_raises_an_error(tmp_path):
  folder = chat_folder(tmp_path / 'model')
  (folder / 'chat_template.jinja').unlink()
  (folder / 'tokenizer_config.json').write_text('{"tokenizer_class": "Qwen2Tokenizer"}')
  for path in (folder / 'additional_chat_templates').iterdir():
    path.unlink()
  m = tfm.load(folder)
  assert m.chat_template is None
  with pytest.raises(errors.UserError, match='has no chat template'):
    m.chat(USER)


def test_chat_on_the_command_line(folder, capsys, monkeypatch):
  command = [
    'generate',
    f'--checkpoint={folder}',
    '--chat',
    '--temperature=0',
    '--max_new_tokens=6',
  ]
  m = tfm.load(folder)
  assert main.run([*command, '--prompt=the cat', '--prompt=on', '--json']) == 0
  first, second = map(json.loads, capsys.readouterr().out.splitlines())
  assert first == {'prompt': 'the cat', 'text': m.chat(USER, temperature=0, max_new_tokens=6)}
  assert second['prompt'] == 'on'
  monkeypatch.setattr('sys.stdin', io.StringIO('the cat'))
  assert main.run(command) == 0
  assert capsys.readouterr().out == first['text'] + '\n'
  assert main.run([*command, '--system=on the mat', '--prompt=the cat', '--json']) == 0
  system = [{'role': 'system', 'content': 'on the mat'}, *USER]
  assert json.loads(capsys.readouterr().out)['text'] == m.chat(
    system, temperature=0, max_new_tokens=6
  )


def test_conversation_keeps_its_turns(folder, capsys, monkeypatch):
  lines = iter(['the cat', 'on the mat'])

  class Terminal(io.StringIO):
    def isatty(self):
      return True

  monkeypatch.setattr('sys.stdin', Terminal())
  monkeypatch.setattr('builtins.input', lambda prompt: next(lines, ''))
  command = [
    'generate',
    f'--checkpoint={folder}',
    '--chat',
    '--temperature=0',
    '--max_new_tokens=6',
  ]
  assert main.run(command) == 0
  m, out = tfm.load(folder), capsys.readouterr().out
  options = {'temperature': 0, 'max_new_tokens': 6}
  first = m.chat(USER, **options)
  turns = [
    *USER,
    {'role': 'assistant', 'content': first},
    {'role': 'user', 'content': 'on the mat'},
  ]
  second = m.chat(turns, **options)
  assert out == f'Type a message. An empty line ends the conversation.\n{first}\n{second}\n'


@pytest.mark.parametrize(
  ('words', 'problem'),
  [
    (['--prompt=a', '--system=b'], '--system: needs --chat'),
    (
      ['--chat', '--prompt=a', '--template_variables=[1]'],
      '--template_variables: is [1]. Expected a JSON object',
    ),
    (['--chat', '--prompt=a', '--template_variables={'], '--template_variables: is not JSON'),
    (['--chat', '--audio=a.wav'], '--audio: cannot be combined with --chat'),
  ],
)
def test_invalid_chat_flags_raise_errors(folder, capsys, words, problem):
  assert main.run(['generate', f'--checkpoint={folder}', *words]) == 2
  assert problem in capsys.readouterr().err
