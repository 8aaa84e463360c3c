import errno
import multiprocessing
from pathlib import Path
import subprocess
import sys
import time

import numpy as np
import pytest

from tfm.core.errors import UserError
from tfm.data import store as store_lib
from tfm.data.framing import Framing
from tfm.data.store import default_cache, open_store, write_store
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


def test_files_of_a_killed_writer_are_removed(tmp_path):
  open_store(tmp_path, {}, _write)
  (path,) = (p for p in tmp_path.iterdir() if p.is_dir())
  path.rename(tmp_path / f'.{path.name}.killed')
  (tmp_path / f'.{path.name}.killed' / 'meta.json').unlink()
  open_store(tmp_path, {}, _write)
  assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == [path.name]


def test_truncated_store_is_written_again(tmp_path):
  open_store(tmp_path, {}, _write)
  (file,) = tmp_path.glob('*/train.bin')
  file.write_bytes(b'')
  assert len(open_store(tmp_path, {}, _write).splits['train'].tokens) == 8


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
from tfm.data.store import open_store, write_store
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


def test_next_writer_removes_files_of_a_killed_process(tmp_path):
  program = f"""
import itertools
from pathlib import Path
from tfm.data.framing import Framing
from tfm.data.store import open_store, write_store
from tfm.data.tokenizer.byte import ByteVocabulary
endless = lambda split: [itertools.repeat('x' * 100_000)]
write = lambda folder: write_store(folder, ByteVocabulary(), endless, Framing())
open_store(Path({str(tmp_path)!r}), {{}}, write)
"""
  writer = subprocess.Popen([sys.executable, '-c', program])
  try:
    while not any(file.stat().st_size for file in tmp_path.glob('.*/train.bin')):
      assert writer.poll() is None
      time.sleep(0.02)
  finally:
    writer.kill()
    writer.wait()
  assert not list(tmp_path.glob('[!.]*/'))
  assert len(open_store(tmp_path, {}, _write).splits['train'].tokens) == 8
  assert len([p for p in tmp_path.iterdir() if p.is_dir()]) == 1
