from tfm.data import Stdlib
from tfm.data.stdlib import read_source, source_files
from tfm.data.tokenizer import Byte


def test_stdlib_excludes_tests_and_installed_packages():
  files = source_files()
  names = {'/'.join(p.parts[-2:]) for p in files}
  assert {'json/decoder.py', 'asyncio/events.py'} <= names
  assert not any(
    {'test', 'tests', 'site-packages', 'dist-packages', 'idle_test'} & set(p.parts[:-1])
    for p in files
  )
  assert sum(p.stat().st_size for p in files) > 5e6


def test_every_twentieth_file_is_held_out(tmp_path):
  data = Stdlib(tokenizer=Byte(), cache=str(tmp_path))
  train, val = (list(data.documents(split)) for split in ('train', 'val'))
  assert len(val) == (len(train) + len(val)) // 20
  corpus = data.corpus(65, overlap=1)
  assert corpus.vocab == 257
  assert corpus.store.splits['val'].text_bytes == sum(len(t.encode()) for t in val)
  kept = corpus.store.splits['val']
  assert corpus.vocabulary.decode(kept.tokens[kept.starts[0] : kept.starts[1]]) == val[0]


def test_val_every_below_two_is_an_error():
  assert list(Stdlib(val_every=1).check()) == [
    'val_every: is 1, which leaves no file to train on. Expected 2 or more.'
  ]


def test_source_is_read_in_its_declared_encoding(tmp_path):
  file = tmp_path / 'x.py'
  file.write_bytes(b'# coding: latin-1\n# caf\xe9\n')
  assert read_source(file).endswith('café\n')
  file.write_bytes(b'# caf\xe9\n')
  assert read_source(file) is None


def test_skipped_file_is_reported(tmp_path, monkeypatch, caplog):
  (tmp_path / 'good.py').write_text('x = 1\n')
  (tmp_path / 'odd.py').write_bytes(b'# caf\xe9\n')
  monkeypatch.setattr('tfm.data.stdlib.source_files', lambda: sorted(tmp_path.glob('*.py')))
  assert list(Stdlib().documents('train')) == ['x = 1\n']
  assert 'odd.py is skipped' in caplog.text
