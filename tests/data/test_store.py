import errno
import json
import multiprocessing
import os
from pathlib import Path
import subprocess
import sys
import time

import numpy as np
import pytest

from tfm.core.errors import UserError
from tfm.data import mapped, store_writer
from tfm.data import store as store_lib
from tfm.data.framing import Framing
from tfm.data.store import default_cache, open_store
from tfm.data.store_writer import write_store
from tfm.data.tokenizer.byte import ByteVocabulary

TEXTS = {'train': [['a', 'bc'], [''], [], ['de']], 'val': [['f']]}


def _write(folder, separated=True):
  vocabulary = ByteVocabulary().with_specials(('eos',)) if separated else ByteVocabulary()
  write_store(
    folder, vocabulary, TEXTS.__getitem__, Framing(end=(256,)) if separated else Framing()
  )


def test_documents_are_separated_by_end_tokens(tmp_path):
  store = open_store(tmp_path, {'a': 1}, _write)
  eos = store.vocabulary.eos
  assert store.splits['train'].tokens.tolist() == [eos, *b'abc', eos, *b'de', eos]
  assert store.splits['train'].starts.tolist() == [1, 5, 8]
  assert store.splits['val'].text_bytes == 1
  assert store.splits['train'].tokens.dtype == np.uint16


def test_one_document_needs_no_end_of_text(tmp_path):
  store = open_store(tmp_path, {}, lambda folder: _write(folder, separated=False))
  assert store.vocabulary.eos is None
  assert store.splits['train'].tokens.tolist() == list(b'abcde')


def test_large_vocabulary_is_stored_in_four_bytes(tmp_path):
  class Wide(ByteVocabulary):
    @property
    def size(self):
      return 70_000

  write = lambda folder: write_store(folder, Wide(), TEXTS.__getitem__, Framing())
  assert open_store(tmp_path, {}, write).splits['train'].tokens.dtype == np.uint32


def test_empty_split_is_left_out(tmp_path):
  write = lambda folder: write_store(
    folder, ByteVocabulary(), lambda s: [['x']] if s == 'train' else [], Framing()
  )
  assert list(open_store(tmp_path, {}, write).splits) == ['train']


def test_writer_that_fails_leaves_nothing(tmp_path):
  def write(folder):
    _write(folder)
    raise RuntimeError('power cut')

  with pytest.raises(RuntimeError):
    open_store(tmp_path, {}, write)
  assert [p.suffix for p in tmp_path.iterdir()] == ['.lock']
  open_store(tmp_path, {}, _write)


@pytest.mark.parametrize('name', ['train.bin', 'train.starts.npy', 'vocabulary.json'])
@pytest.mark.parametrize('damage', ['truncated', 'missing', 'changed'])
def test_damaged_store_is_an_error_until_rebuilt(tmp_path, name, damage):
  open_store(tmp_path, {}, _write)
  (file,) = tmp_path.glob(f'*/{name}')
  content = file.read_bytes()
  if damage == 'missing':
    file.unlink()
  elif damage == 'truncated':
    file.write_bytes(content[:-1])
  else:
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
  with pytest.raises(UserError, match=rf'{name} is damaged .*`tfm data --config=... --rebuild`'):
    open_store(tmp_path, {}, _write).check()
  with store_lib.rebuilding():
    open_store(tmp_path, {}, _write).check()
  assert file.read_bytes() == content


def test_tokens_are_the_same_after_pages_are_released(tmp_path, monkeypatch):
  monkeypatch.setattr(mapped, '_LIMIT', 1)
  released = []
  release = mapped.Mapped._release
  monkeypatch.setattr(
    mapped.Mapped, '_release', lambda self: released.append(len(self)) or release(self)
  )
  tokens = open_store(tmp_path, {}, _write).splits['train'].tokens
  for _ in range(3):
    found = tokens[np.array([[1, 2, 3], [5, 6, 7]])]
    assert type(found) is np.ndarray
    assert found.tolist() == [[*b'abc'], [*b'de', 256]]
  assert released == [8] * 3


def test_damaged_description_is_an_error(tmp_path):
  open_store(tmp_path, {}, _write)
  (file,) = tmp_path.glob('*/meta.json')
  for content in ('{', '[]', '{"splits": {}}', '{"splits": {"train": 1}, "dtype": "<u2"}'):
    file.write_text(content)
    with pytest.raises(UserError, match=r'meta.json is damaged \(is not the description'):
      open_store(tmp_path, {}, _write)


def test_store_of_an_earlier_version_opens(tmp_path):
  store = open_store(tmp_path, {}, _write)
  meta = {'splits': {}, 'dtype': '<u2', 'content': store.content}
  for name, row in store.meta['splits'].items():
    meta['splits'][name] = {key: row[key] for key in ('tokens', 'documents', 'bytes')}
  (store.path / 'meta.json').write_text(json.dumps(meta))
  again = open_store(tmp_path, {}, _write)
  again.check()
  assert again.splits['train'].tokens.tolist() == store.splits['train'].tokens.tolist()


def _identity(**changes):
  source = {'data': 'text', 'val_tail': 0.1, 'files': [['/a', 3, 5], ['/b', 3, 5]]}
  tokenizer = {'tokenizer': 'bpe', 'vocab': 9}
  for name, value in changes.items():
    (source if name in source else tokenizer)[name] = value
  return {'source': source, 'tokenizer': tokenizer, 'separated': True}


@pytest.mark.parametrize(
  ('changes', 'sentence'),
  [
    ({'vocab': 10}, 'tokenizer.vocab: 9 -> 10.'),
    ({'val_tail': 0.2}, 'source.val_tail: 0.1 -> 0.2.'),
    ({'files': [['/a', 4, 6], ['/c', 3, 5]]}, '/a changed, /b is gone, /c is new.'),
    ({'files': [['/z', 4, 6]]}, None),
    ({'tokenizer': 'char'}, 'tokenizer.tokenizer: "bpe" -> "char".'),
  ],
)
def test_new_store_lists_the_changes(tmp_path, caplog, changes, sentence):
  open_store(tmp_path, _identity(), _write)
  assert 'tokenised again' not in caplog.text
  open_store(tmp_path, _identity(**changes), _write)
  if sentence is None:
    assert 'tokenised again' not in caplog.text
  else:
    assert f'data: the text is tokenised again: {sentence}' in caplog.text


def _open(path, queue):
  queue.put(open_store(Path(path), {}, lambda folder: (_write(folder), queue.put('wrote'))).content)


def test_concurrent_processes_write_a_store_once(tmp_path):
  context = multiprocessing.get_context('spawn')
  queue = context.SimpleQueue()
  workers = [context.Process(target=_open, args=(str(tmp_path), queue)) for _ in range(3)]
  for w in workers:
    w.start()
  for w in workers:
    w.join()
  results = [queue.get() for _ in range(4)]
  assert sorted(results)[-1] == 'wrote'
  assert len(set(results)) == 2


def test_full_disk_is_an_error_and_leaves_no_store(tmp_path, monkeypatch):
  def full(*_):
    raise OSError(errno.ENOSPC, 'No space left on device')

  monkeypatch.setattr(store_lib.os, 'fsync', full)
  with pytest.raises(
    UserError, match=r'data.cache: no space for the token store in .*Nothing was kept'
  ):
    open_store(tmp_path, {}, _write)
  assert not [p for p in tmp_path.iterdir() if p.is_dir()]


def test_file_size_limit_is_an_error(tmp_path):
  program = f"""
import resource, signal
from pathlib import Path
from tfm.data.framing import Framing
from tfm.data.store import open_store
from tfm.data.store_writer import write_store
from tfm.data.tokenizer.byte import ByteVocabulary
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
documents = lambda split: [['x' * 9999]]
write = lambda folder: write_store(folder, ByteVocabulary(), documents, Framing())
open_store(Path({str(tmp_path)!r}), {{}}, write)
"""
  done = subprocess.run(
    [sys.executable, '-c', program], capture_output=True, text=True, check=False
  )
  assert 'no space for the token store' in done.stderr
  assert not [p for p in tmp_path.iterdir() if p.is_dir()]


def test_unwritable_cache_is_an_error(tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(UserError, match=r'data.cache: cannot write the token store in .*file'):
    open_store(tmp_path / 'file', {}, _write)


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
  monkeypatch.setenv('TFM_CACHE', str(tmp_path))
  assert default_cache() == tmp_path
  monkeypatch.delenv('TFM_CACHE')
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  assert default_cache() == tmp_path / 'tfm'
  monkeypatch.delenv('XDG_CACHE_HOME')
  assert default_cache() == Path.home() / '.cache' / 'tfm'


WRITER = """
import sys, time
from pathlib import Path
from tfm.data import mapped, store_writer
from tfm.data.framing import Framing
from tfm.data.store import open_store
from tfm.data.tokenizer import Bpe
from tests.data.test_store import long_documents

store_writer._SAVE = store_writer._BATCH = 20_000
store_writer._CHUNK = 3_000
encode = store_writer._encoded

def slow(*args):
  time.sleep(float(sys.argv[2]))
  return encode(*args)

def write(folder):
  found = store_writer.saved_vocabulary(folder)
  print('continued' if found else 'begun', flush=True)
  vocabulary = found or Bpe(vocab=300).learn(long_documents).with_specials(('eos',))
  store_writer.write_store(folder, vocabulary, long_documents, Framing(end=(vocabulary.eos,)))

store_writer._encoded = slow
open_store(Path(sys.argv[1]), {}, write)
"""


def long_documents(split):
  if split == 'train':
    yield [f'a long document, é {i}\n' * 10 for i in range(900)]
  for i in range(60 if split == 'train' else 40):
    yield ['' if i % 9 == 4 else f'{split} {i} words and more words ' * (i * 7 % 50)]


def _files(cache):
  (folder,) = (p for p in cache.iterdir() if p.is_dir())
  return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def _start(cache, delay):
  env = {**os.environ, 'PYTHONPATH': str(Path(__file__).parents[2])}
  command = [sys.executable, '-c', WRITER, str(cache), str(delay)]
  return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)


def test_killed_writer_continues_with_the_same_bytes(tmp_path):
  with _start(tmp_path / 'whole', 0) as whole:
    whole.communicate()
  begun = []
  # The first is killed while it learns the vocabulary, the last within the validation split.
  for name, size in (('', 0), ('train.bin', 60_000), ('val.bin', 1)):
    with _start(tmp_path / 'killed', 0.03) as writer:
      begun.append(writer.stdout.readline().strip())
      while name and not any(
        f.stat().st_size > size for f in tmp_path.glob(f'*/.*.partial/{name}')
      ):
        assert writer.poll() is None
        time.sleep(0.001)
      writer.kill()
    assert not list((tmp_path / 'killed').glob('[!.]*/'))
  with _start(tmp_path / 'killed', 0) as last:
    begun.append(last.communicate()[0].strip())
  assert begun[2:] == ['continued'] * 2
  assert _files(tmp_path / 'killed') == _files(tmp_path / 'whole')


@pytest.fixture
def small_steps(monkeypatch):
  for name, value in (('_SAVE', 1), ('_BATCH', 2), ('_CHUNK', 3)):
    monkeypatch.setattr(store_writer, name, value)


def _interrupted(cache, text, at):
  """Leave the files of a writer that is interrupted in the document with number `at`."""

  def documents(split):
    for i, part in enumerate(text[split]):
      if i == at:
        raise KeyboardInterrupt
      yield part

  vocabulary = ByteVocabulary().with_specials(('eos',))
  with pytest.raises(KeyboardInterrupt):
    open_store(cache, {}, lambda f: write_store(f, vocabulary, documents, Framing(end=(256,))))


def test_interrupted_writer_encodes_only_the_rest(tmp_path, small_steps, monkeypatch):
  _interrupted(tmp_path, TEXTS, at=3)
  encoded = []
  encode = ByteVocabulary.encode_batch
  monkeypatch.setattr(
    ByteVocabulary, 'encode_batch', lambda self, texts: encoded.extend(texts) or encode(self, texts)
  )
  store = open_store(tmp_path, {}, _write)
  assert ''.join(encoded) == 'def'
  assert store.splits['train'].starts.tolist() == [1, 5, 8]
  empty = {'count': 2, 'files': 1, 'first': ['']}
  assert store.meta['rejected']['train'] == {'empty documents skipped': empty}
  store.check()


@pytest.mark.parametrize('harm', ['tokens', 'journal', 'text'])
def test_unusable_files_of_a_writer_are_written_again(tmp_path, small_steps, harm):
  if harm == 'text':
    longer = {'train': [['abcdef'], ['ghi'], ['j'], ['k'], ['l']], 'val': []}
    _interrupted(tmp_path, longer, at=4)
  else:
    _interrupted(tmp_path, TEXTS, at=3)
  (folder,) = tmp_path.glob('.*.partial')
  if harm == 'tokens':
    (folder / 'train.bin').write_bytes(bytes(2 * 8))
  elif harm == 'journal':
    (folder / 'journal.json').write_text('{')
  store = open_store(tmp_path, {}, _write)
  assert store.splits['train'].tokens.tolist() == [256, *b'abc', 256, *b'de', 256]
  store.check()
