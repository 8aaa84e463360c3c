"""Conversations: tokens with a loss, counts of changed conversations, errors."""

import dataclasses
import json

import numpy as np
import pytest

from tests.data.chat.templates import TEMPLATES
from tests.hub.folders import byte_level
from tfm.core.config import validate
from tfm.core.errors import ConfigError, UserError
from tfm.data import Conversations
from tfm.data.chat import ChatTemplate
from tfm.data.chat.answers import render_answers
from tfm.data.conversation_corpus import encode
from tfm.data.tokenizer import Bpe, Byte, Char, File
from tfm.data.tokenizer.published import read_tokenizer
from tfm.hub.export_metadata import write_files
from tfm.hub.files import FolderFiles
from tfm.tasks import CausalLM, MaskedLM

USER = {'role': 'user', 'content': 'What is 2 < 3?'}
ANSWER = {'role': 'assistant', 'content': 'It is <b>true</b>.'}
WHY = {'role': 'user', 'content': 'Why?'}
BECAUSE = {'role': 'assistant', 'content': '\nBecause 3 = 2 + 1.'}
DIALOGUES = [
  [USER, ANSWER],
  [{'role': 'system', 'content': 'Be brief.'}, USER, ANSWER, WHY, BECAUSE],
  [WHY, {'role': 'assistant', 'content': 'Ünï 🙂'}],
]
#: What ends an answer in each template.
ENDS = {
  'chatml': '<|im_end|>', 'gemma': '<end_of_turn>', 'llama2': ' </s>', 'llama3': '<|eot_id|>',
  'mistral': '</s>', 'phi3': '<|end|>', 'qwen3': '<|im_end|>', 'zephyr': '</s>',
}  # fmt: skip
SPECIALS = ('<s>', '</s>', '<|im_start|>', '<|im_end|>', '<end_of_turn>', '<|eot_id|>', '<|end|>')


def write(path, dialogues):
  path.write_text(''.join(json.dumps({'messages': turns}) + '\n' for turns in dialogues), 'utf-8')
  return str(path)


@pytest.fixture
def data(tmp_path):
  files = write(tmp_path / 'chat.jsonl', DIALOGUES)
  cache = str(tmp_path / 'cache')
  return Conversations(files=files, tokenizer=Byte(), length=150, batch=2, cache=cache)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A published folder with the special tokens of all templates."""
  path = tmp_path_factory.mktemp('published')
  byte_level(specials=SPECIALS).save(str(path / 'tokenizer.json'))
  names = {'bos_token': '<s>', 'eos_token': '</s>', 'tokenizer_class': 'PreTrainedTokenizerFast'}
  (path / 'tokenizer_config.json').write_text(json.dumps(names))
  return path


@pytest.mark.parametrize('tokenizer', [Byte(), Char(), Bpe(300)], ids=['byte', 'char', 'bpe'])
def test_loss_covers_the_answers_and_their_end(data, tokenizer):
  corpus = dataclasses.replace(data, tokenizer=tokenizer).open(CausalLM())
  vocabulary = corpus.vocabulary
  (raw,) = corpus.eval_batches('train', 4)
  texts, ends = [], 0
  for tokens, segments, loss in zip(raw['tokens'], raw['segments'], raw['loss'], strict=True):
    for segment in range(1, segments.max() + 1):
      written = tokens[(segments == segment) & (loss == 1)]
      texts.append(vocabulary.decode(written))
      ends += (written == vocabulary.special('im_end')).sum()
      assert written[-1] == vocabulary.special('im_end')
  expected = [[m['content'] for m in turns if m['role'] == 'assistant'] for turns in DIALOGUES]
  assert sorted(texts) == sorted(map(''.join, expected))
  assert ends == 4


@pytest.mark.parametrize('name', sorted(ENDS))
def test_loss_covers_the_answers_of_published_templates(folder, name):
  vocabulary = read_tokenizer(folder)
  template = ChatTemplate({'default': TEMPLATES[name]}, {'bos_token': '<s>', 'eos_token': '</s>'})
  turns = [USER, ANSWER, WHY, BECAUSE]
  rendered = render_answers(template, turns)
  assert not rendered.missing
  (encoded,) = encode(vocabulary, [rendered])
  read = lambda ids: vocabulary.inner.decode(ids.tolist(), skip_special_tokens=False)
  assert read(encoded.ids) == template.render(turns, add_generation_prompt=False)
  starts, stops = _runs(encoded.loss)
  answers = [read(encoded.ids[a:b]) for a, b in zip(starts, stops, strict=True)]
  trims = name in ('gemma', 'llama2', 'llama3', 'mistral')
  contents = [m['content'].strip() if trims else m['content'] for m in (ANSWER, BECAUSE)]
  space = ' ' if name in ('llama2', 'mistral') else ''
  expected = [space + content + ENDS[name] for content in contents]
  if name == 'phi3':  # it ends a conversation with one more token
    expected[-1] += '\n</s>'
  assert answers == expected


def _runs(loss):
  edges = np.flatnonzero(np.diff(np.concatenate([[0], loss.astype(int), [0]])))
  return edges[::2], edges[1::2]


def test_tokens_do_not_cross_the_start_of_an_answer(tmp_path):
  inner = byte_level(words=['a\n\n\nb'] * 9, specials=SPECIALS)
  inner.save(str(tmp_path / 'tokenizer.json'))
  vocabulary = File(str(tmp_path)).learn(lambda split: ())
  template = ChatTemplate({'default': TEMPLATES['chatml']})
  turns = [USER, {'role': 'assistant', 'content': '\n\nb'}]
  (encoded,) = encode(vocabulary, [render_answers(template, turns)])
  prompt = vocabulary.prompt(template.render(turns[:1]), framed=False)
  np.testing.assert_array_equal(encoded.ids[: len(prompt)], prompt)
  assert len(prompt) == encoded.loss.argmax()
  assert vocabulary.decode(encoded.ids[encoded.loss]) == '\n\nb'
  assert not np.array_equal(vocabulary.prompt(render_answers(template, turns).text), encoded.ids)


def test_marks_place_answers_that_the_template_changes_later():
  thought = {**ANSWER, 'reasoning_content': 'Hm.'}
  template = ChatTemplate({'default': TEMPLATES['qwen3']})
  rendered = render_answers(template, [USER, thought, WHY, BECAUSE])
  assert not rendered.missing
  answers = [rendered.text[a:b] for a, b in rendered.answers]
  start = '<|im_start|>assistant\n'
  assert answers == [start + ANSWER['content'], start + BECAUSE['content']]


def test_unplaced_answers_are_counted_and_have_no_loss():
  rendered = render_answers(ChatTemplate({'default': TEMPLATES['deepseek']}), DIALOGUES[1])
  assert (rendered.answers, rendered.missing) == ([], 2)


def test_truncated_and_empty_conversations_are_counted(data, tmp_path, caplog):
  long = [USER, {'role': 'assistant', 'content': 'x' * 200}]
  write(tmp_path / 'chat.jsonl', [*DIALOGUES, [USER], long, [{**USER, 'content': 'y' * 200}, WHY]])
  corpus = data.open(CausalLM())
  problems = [record.getMessage() for record in caplog.records]
  assert problems[0].startswith(
    'data: 1 of 6 conversations are longer than 151 tokens and lose their end (data.length). The '
    f'first is data.files: {tmp_path}/chat.jsonl line 5'
  )
  assert problems[1].startswith('data: 2 of 6 conversations have no answer in 151 tokens')
  assert len(corpus.store.splits['train'].starts) - 1 == 4
  caplog.clear()
  data.open(CausalLM())  # the counts are stored
  assert [record.getMessage() for record in caplog.records] == problems


def test_every_nth_conversation_is_for_validation(data, tmp_path):
  split = dataclasses.replace(data, val_every=3)
  texts = {name: list(split.documents(name)) for name in ('train', 'val')}
  assert [len(texts['train']), len(texts['val'])] == [2, 1]
  assert 'Ünï' in texts['val'][0]
  apart = dataclasses.replace(data, val_files=write(tmp_path / 'val.jsonl', DIALOGUES[:1]))
  assert len(list(apart.documents('train'))) == 3
  assert len(list(apart.documents('val'))) == 1


def test_sharegpt_files_are_read(data, tmp_path):
  turns = [{'from': 'human', 'value': 'a'}, {'from': 'gpt', 'value': 'b'}]
  (tmp_path / 'chat.jsonl').write_text(json.dumps({'conversations': turns}))
  expected = '<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n'
  assert list(data.documents('train')) == [expected]


@pytest.mark.parametrize(
  ('line', 'message'),
  [
    ('{', r'chat.jsonl line 2: is not JSON \(.*Expected {"messages": '),
    ('{"text": "a"}', 'line 2: has no list of messages'),
    ('{"messages": [{"content": "a"}]}', 'line 2: message 1 has no role'),
    ('{"messages": [{"role": "user"}]}', 'line 2: message 1 has no content'),
  ],
)
def test_invalid_lines_are_errors_that_name_the_line(data, tmp_path, line, message):
  with open(tmp_path / 'chat.jsonl', 'w') as file:
    file.write(json.dumps({'messages': DIALOGUES[0]}) + '\n' + line)
  with pytest.raises(UserError, match=message):
    data.open(CausalLM())


def test_conversations_need_a_template_special_tokens_and_a_task(data, folder, tmp_path):
  published = dataclasses.replace(data, tokenizer=File(str(folder)))
  with pytest.raises(UserError, match=r'data.template: .* has no chat template. Expected chatml'):
    published.open(CausalLM())
  byte_level(specials=('</s>',)).save(str(tmp_path / 'tokenizer.json'))
  without = dataclasses.replace(
    data, tokenizer=File(str(tmp_path / 'tokenizer.json')), template='chatml'
  )
  with pytest.raises(UserError, match='the tokenizer has no im_start, im_end'):
    without.open(CausalLM())
  assert list(MaskedLM().fits_data(data)) == [
    'task: masked_lm ignores the token weights of this source. Expected causal_lm.'
  ]
  with pytest.raises(ConfigError) as error:
    validate(dataclasses.replace(data, files='', val_every=1, begin='never'))
  for problem in ('files: is empty', 'val_every: is 1', 'begin: is never'):
    assert problem in str(error.value)


def test_checkpoints_keep_the_template_and_the_end_token(data, folder, tmp_path):
  learnt = data.open(CausalLM())
  end = learnt.vocabulary.special('im_end')
  settings = json.loads(learnt.files['published/generation_config.json'])
  assert settings == {'eos_token_id': [end, learnt.vocabulary.eos]}
  template = ChatTemplate({'default': learnt.files['published/chat_template.jinja'].decode()})
  assert template.render(DIALOGUES[0], add_generation_prompt=False) == next(data.documents('train'))
  given = dataclasses.replace(data, tokenizer=File(str(folder)), template='chatml')
  (folder / 'generation_config.json').write_text('{"eos_token_id": 5, "top_k": 3}')
  settings = json.loads(given.open(CausalLM()).files['published/generation_config.json'])
  (folder / 'generation_config.json').unlink()
  assert settings['top_k'] == 3
  assert settings['eos_token_id'][1] == 5


def test_exported_chat_tokenizer_is_complete(data, tmp_path):
  corpus = dataclasses.replace(data, tokenizer=Bpe(300)).open(CausalLM())
  files = {name.removeprefix('published/'): text for name, text in corpus.files.items()}
  (tmp_path / 'out').mkdir()
  write_files(tmp_path / 'out', FolderFiles(files), corpus.vocabulary)
  config = json.loads((tmp_path / 'out' / 'tokenizer_config.json').read_text())
  assert config == {
    'tokenizer_class': 'PreTrainedTokenizerFast', 'eos_token': '<|endoftext|>',
  }  # fmt: skip
  again, template = read_tokenizer(tmp_path / 'out'), ChatTemplate.read(tmp_path / 'out')
  text = template.render(DIALOGUES[0])
  expected = corpus.vocabulary.prompt(text, framed=False).tolist()
  assert again.prompt(text, framed=False).tolist() == expected
  assert again.eos == corpus.vocabulary.eos
