import dataclasses
import os
from pathlib import Path
import subprocess
import sys

import hypothesis
from hypothesis import strategies as st
import pytest

from tfm.core.config import validate
from tfm.core.errors import ConfigError, UserError
from tfm.data import Text, blocks, tail


def _docs(data, split):
  return list(data.documents(split))


def test_split_of_one_file_matches_nanogpt(tmp_path):
  text = 'é' * 31 + 'x' * 16
  (tmp_path / 'a.txt').write_text(text, 'utf-8')
  data = Text(files=str(tmp_path / 'a.txt'))
  n = int(len(text) * 0.9)
  assert _docs(data, 'train') == [text[:n]]
  assert _docs(data, 'val') == [text[n:]]
  assert not data.separated()


def test_tail_of_several_files_is_the_tail_of_their_text(tmp_path):
  for name, text in (('a', 'a' * 50), ('b', 'b' * 30), ('c', 'c' * 20)):
    (tmp_path / name).write_text(text)
  data = Text(files=f'{tmp_path}/a,{tmp_path}/b , {tmp_path}/c', val_tail=0.3)
  assert _docs(data, 'train') == ['a' * 50, 'b' * 20]
  assert _docs(data, 'val') == ['b' * 10, 'c' * 20]
  assert data.separated()


def test_files_may_be_a_glob_or_a_folder(tmp_path):
  (tmp_path / 'sub').mkdir()
  for name in ('b.txt', 'a.txt', 'sub/c.txt', 'other.md', '.hidden'):
    (tmp_path / name).write_text(name)
  read = lambda files: ''.join(_docs(Text(files=files, val_tail=0.0), 'train'))
  assert read(f'{tmp_path}/*.txt') == 'a.txtb.txt'
  assert read(f'{tmp_path}/**/*.txt') == 'a.txtb.txtsub/c.txt'
  assert read(str(tmp_path)) == 'a.txtb.txtother.mdsub/c.txt'


def test_validation_files_replace_the_tail(tmp_path):
  (tmp_path / 't').write_text('train')
  (tmp_path / 'v').write_text('val')
  data = Text(files=f'{tmp_path}/t', val_files=f'{tmp_path}/v')
  assert (_docs(data, 'train'), _docs(data, 'val')) == (['train'], ['val'])


def test_line_ends_are_kept(tmp_path):
  (tmp_path / 't').write_bytes(b'a\r\nb\n')
  assert _docs(Text(files=f'{tmp_path}/t', val_tail=0.0), 'train') == ['a\r\nb\n']


def test_invalid_utf8_is_an_error_that_names_the_byte(tmp_path):
  (tmp_path / 'x').write_bytes(b'caf\xe9 noir')
  with pytest.raises(
    UserError, match=r'x is not UTF-8: byte 3 is 0xe9 \(invalid continuation byte\)'
  ):
    Text(files=f'{tmp_path}/x').corpus(4)


def test_empty_file_is_an_error(tmp_path):
  (tmp_path / 'x').touch()
  with pytest.raises(UserError, match=r'no text to train on \(1 empty documents skipped\)'):
    Text(files=f'{tmp_path}/x', cache=str(tmp_path / 'c')).corpus(4)


@pytest.mark.parametrize(
  ('files', 'message'),
  [
    ('gone.txt', r'cannot read gone.txt \(No such file'),
    ('gone/*.txt', "data.files: no file matches 'gone/\\*.txt'"),
  ],
)
def test_missing_files_are_an_error(files, message):
  with pytest.raises(UserError, match=message):
    Text(files=files).corpus(4)


def test_all_field_errors_are_reported_together():
  with pytest.raises(ConfigError) as error:
    validate(Text(val_tail=1.5, length=0, batch=0))
  for word in ('files: is empty', 'val_tail: is 1.5', 'length: is 0', 'batch: is 0'):
    assert word in str(error.value)


def test_only_changed_files_are_tokenised_again(tmp_path, monkeypatch):
  file = tmp_path / 'x'
  file.write_text('one two three ' * 20)
  data = Text(
    files=str(file), cache=str(tmp_path / 'c'), tokenizer=Text.from_text('text').tokenizer
  )
  first = data.corpus(4)
  reads = []
  monkeypatch.setattr(
    Text, 'streams', lambda self, split: reads.append(split) or iter([['four ' * 99]])
  )
  assert data.corpus(4).fingerprint == first.fingerprint
  assert not reads
  file.write_text('four five six ' * 30)
  assert data.corpus(4).fingerprint != first.fingerprint
  assert reads


def test_changed_task_reuses_the_tokenised_text(tmp_path, monkeypatch):
  (tmp_path / 'x').write_text('one two three ' * 20)
  data = Text(files=f'{tmp_path}/x', cache=str(tmp_path / 'c'))
  plain = data.corpus(4)
  monkeypatch.setattr(Text, 'streams', None)
  masked = dataclasses.replace(data, length=8).corpus(8, 0, ('mask',))
  assert masked.vocab == plain.vocab + 1 == masked.vocabulary.mask + 1


@hypothesis.given(
  st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=4),
  st.floats(0, 0.99),
  st.integers(1, 30),
)
@hypothesis.settings(max_examples=100, deadline=None)
def test_reading_by_block_matches_reading_the_whole(tmp_path_factory, texts, tail, block):
  folder = tmp_path_factory.mktemp('texts')
  for i, text in enumerate(texts):
    (folder / str(i)).write_bytes(text.encode())
  cut = int(sum(map(len, texts)) * (1 - tail))
  starts = [sum(map(len, texts[:i])) for i in range(len(texts))]
  train = [text[: max(0, cut - start)] for text, start in zip(texts, starts, strict=True)]
  val = [text[max(0, cut - start) :] for text, start in zip(texts, starts, strict=True)]
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(blocks, '_BLOCK', block)
    data = Text(files=str(folder), val_tail=tail)
    assert _docs(data, 'train') == [part for part in train if part]
    assert _docs(data, 'val') == [part for part in val if part]
    assert all(
      len(part.encode()) <= block + 3 for stream in data.streams('train') for part in stream
    )


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (b'ab\xc3\xa9' * 5 + b'\xff.', r'byte 20 is 0xff \(invalid start byte\)'),
    (b'abc\xc3(', r'byte 3 is 0xc3 \(invalid continuation byte\)'),
    (b'abcdefg\xe6\x97', r'byte 7 is 0xe6 \(unexpected end of data\)'),
  ],
)
def test_invalid_utf8_is_located_in_any_block(tmp_path, monkeypatch, content, message):
  monkeypatch.setattr(blocks, '_BLOCK', 4)
  (tmp_path / 'x').write_bytes(content)
  for val_tail in (0.0, 0.5):
    with pytest.raises(UserError, match=rf'data.files: .*x is not UTF-8: {message}'):
      _docs(Text(files=f'{tmp_path}/x', val_tail=val_tail), 'train')


def test_file_is_counted_once_until_it_changes(tmp_path, monkeypatch):
  (tmp_path / 'x').write_text('a' * 50)
  data = Text(files=f'{tmp_path}/x', val_tail=0.5)
  assert _docs(data, 'train') == ['a' * 25]
  monkeypatch.setattr(tail, 'Progress', None)
  assert _docs(data, 'val') == ['a' * 25]
  monkeypatch.undo()
  (tmp_path / 'x').write_text('b' * 60)
  assert _docs(data, 'val') == ['b' * 30]


MEASURE = """
import resource
from tfm.data import Text
from tfm.data.tokenizer import Byte
for name in ('small', 'large'):
  corpus = Text(files=name, val_tail=0.5, tokenizer=Byte(), cache='cache').corpus(64)
  size = sum(split.text_bytes for split in corpus.store.splits.values())
  print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10, size)
"""


def test_memory_does_not_grow_with_the_file(tmp_path):
  for name, million in (('small', 8), ('large', 60)):
    with open(tmp_path / name, 'wb') as file:
      for _ in range(million):
        file.write('a line of text, and é in it.\n'.encode() * 32_768)
  env = {**os.environ, 'PYTHONPATH': str(Path(__file__).parents[2])}
  done = subprocess.run(
    [sys.executable, '-c', MEASURE],
    cwd=tmp_path,
    env=env,
    capture_output=True,
    text=True,
    check=True,
  )
  (small, _), (large, size) = (map(int, line.split()) for line in done.stdout.splitlines())
  assert size == 60 * 30 * 32_768
  assert large - small < 16, done.stdout
