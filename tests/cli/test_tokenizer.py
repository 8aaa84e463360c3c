"""`tfm tokenizer train` and `show`."""

import pytest

from tests.hub.folders import chat_folder
from tfm.cli import main
from tfm.data import Conversations, Text
from tfm.data.tokenizer import File
from tfm.tasks import CausalLM

TEXT = 'the cat sat on the mat, the cat ate\n' * 40


@pytest.fixture
def files(tmp_path):
  (tmp_path / 'text.txt').write_text(TEXT)
  return str(tmp_path / 'text.txt')


def run(capsys, *words):
  assert main.run(['tokenizer', *words]) == 0
  return capsys.readouterr().out


def test_trained_folder_is_a_tokenizer_for_training(files, tmp_path, capsys):
  folder = str(tmp_path / 'mine')
  out = run(
    capsys, 'train', f'--files={files}', '--size=270', '--specials=eos,pad', f'--output={folder}'
  )
  assert out.startswith(f'{folder}: 272 tokens, ')
  assert f"data.tokenizer='file(path={folder})' reads it." in out
  data = Text(files=files, tokenizer=File(folder), cache=str(tmp_path / 'cache'), length=8)
  vocabulary = data.open(CausalLM()).vocabulary
  assert (vocabulary.size, vocabulary.eos, vocabulary.pad) == (272, 270, 271)
  shown = run(capsys, 'show', folder, '--text=the cat é<|endoftext|>')
  assert '[the][ cat][ ]' in shown
  assert shown.rstrip().endswith('[<c3>][<a9>][<|endoftext|>]')
  for row in ('272', '<|endoftext|> eos', 'bytes per token', "' the'"):
    assert row in shown


def test_trained_chat_tokenizer_renders_conversations(files, tmp_path, capsys):
  folder = str(tmp_path / 'mine')
  flags = [f'--files={files}', '--kind=unigram(longest=4)', '--size=258', '--chat']
  run(capsys, 'train', *flags, f'--output={folder}')
  line = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}'
  (tmp_path / 'chat.jsonl').write_text(line)
  chats = str(tmp_path / 'chat.jsonl')
  data = Conversations(files=chats, tokenizer=File(folder), cache=str(tmp_path / 'cache'))
  (raw,) = data.open(CausalLM()).eval_batches('train', 1)
  assert raw['loss'].sum() == 2
  assert raw['tokens'][raw['loss'] == 1][-1] == 260


def test_show_reads_published_folders(tmp_path, capsys):
  folder = chat_folder(tmp_path / 'model')
  assert '<|im_end|>' in run(capsys, 'show', str(folder))
  file = folder / 'tokenizer.json'
  assert '[the]' in run(capsys, 'show', str(file), '--text=the cat')


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    ([], 'nothing: is no action. Expected train, or show with one path.'),
    (['show'], 'show: is no action'),
    (['train', '--output=x'], '--files: is missing. Expected --files=PATH with train.'),
    (['train', '--files=a', '--output=x', '--kind=byte'], '--kind: byte needs no training.'),
    (['train', '--files=a', '--output=x', '--kind=bep'], "'bep'. Did you mean 'bpe'"),
    (['train', '--files=a', '--output=x', '--size=9'], 'vocab: is 9. Expected 256 or more'),
    (['show', 'gone'], 'gone'),
  ],
)
def test_mistakes_are_errors(tmp_path, monkeypatch, capsys, words, message):
  monkeypatch.chdir(tmp_path)
  assert main.run(['tokenizer', *words]) == 2
  assert message in capsys.readouterr().err
