"""Formats of text files: compression, JSON lines, Parquet, Arrow, and invalid content."""

import gzip
import json

import pytest

from tfm.core.errors import UserError
from tfm.data import Text, blocks, readers, rejects
from tfm.data.readers import Reading
from tfm.data.tokenizer import Byte

pyarrow = pytest.importorskip('pyarrow')
TEXTS = ['one', 'two é\n', '', 'three, \x00 and 日本']


def _table(texts=TEXTS, kind=None):
  return pyarrow.table({'id': list(range(len(texts))), 'text': pyarrow.array(texts, kind)})


def _write_parquet(path, texts=TEXTS, kind=None):
  from pyarrow import parquet

  parquet.write_table(_table(texts, kind), path, row_group_size=3)


def _write_stream(path, texts=TEXTS, new=pyarrow.ipc.new_stream):
  with pyarrow.OSFile(str(path), 'wb') as file, new(file, _table().schema) as out:
    out.write_table(_table(texts))


def _write_arrow_file(path):
  _write_stream(path, new=pyarrow.ipc.new_file)


def _lines(texts=TEXTS):
  return ''.join(json.dumps({'text': t}, ensure_ascii=i % 2) + '\n' for i, t in enumerate(texts))


def _write_zstd(path, texts=TEXTS):
  zstandard = pytest.importorskip('zstandard')
  content = _lines(texts).encode()
  frame = zstandard.ZstdCompressor().compress
  path.write_bytes(frame(content[:20]) + frame(content[20:]))


WRITERS = {
  'a.jsonl': lambda path: path.write_text(_lines(), 'utf-8'),
  'a.NDJSON': lambda path: path.write_text(_lines() + '\n\n', 'utf-8'),
  'a.v2.jsonl.gz': lambda path: path.write_bytes(gzip.compress(_lines().encode())),
  'a.jsonl.zst': _write_zstd,
  'a.parquet': _write_parquet,
  'a.arrow': _write_stream,
  'file.arrow': _write_arrow_file,
}


def _read(path, **fields):
  return [''.join(parts) for parts in readers.documents(path, Reading(**fields))]


def _counted(path, **fields):
  found = rejects.Rejects()
  with rejects.collected(found):
    texts = _read(path, **fields)
  return texts, {reason: sum(files.values()) for reason, files in found.counts.items()}


@pytest.mark.parametrize('name', WRITERS)
@pytest.mark.parametrize('block', [1, 1 << 20])
def test_every_format_has_the_same_documents(tmp_path, monkeypatch, name, block):
  monkeypatch.setattr(blocks, '_BLOCK', block)
  monkeypatch.setattr(blocks, '_ZSTD_BLOCK', block)
  WRITERS[name](tmp_path / name)
  assert _read(tmp_path / name) == TEXTS


@pytest.mark.parametrize('suffix', ['.gz', '.zst'])
def test_compressed_text_has_the_documents_of_the_text(tmp_path, suffix):
  content = 'wörter und wörter\r\n'.encode() * 9000
  (tmp_path / 'a.txt').write_bytes(content)
  if suffix == '.gz':
    (tmp_path / f'a.txt{suffix}').write_bytes(gzip.compress(content))
  else:
    zstandard = pytest.importorskip('zstandard')
    (tmp_path / f'a.txt{suffix}').write_bytes(zstandard.ZstdCompressor().compress(content))
  plain, packed = (Text(files=str(tmp_path / name)) for name in ('a.txt', f'a.txt{suffix}'))
  for split in ('train', 'val'):
    assert list(packed.documents(split)) == list(plain.documents(split))
  assert not packed.separated()


@pytest.mark.parametrize('suffix', ['.gz', '.zst'])
@pytest.mark.parametrize('keep', [0.5, -4])
def test_truncated_compression_is_an_error(tmp_path, suffix, keep):
  if suffix == '.gz':
    packed = gzip.compress(bytes(range(128)) * 9000)
  else:
    zstandard = pytest.importorskip('zstandard')
    packed = zstandard.ZstdCompressor(write_checksum=True).compress(bytes(range(128)) * 9000)
  path = tmp_path / f'a.txt{suffix}'
  path.write_bytes(packed[: int(keep * len(packed)) if keep > 0 else keep])
  with pytest.raises(UserError, match=r'data.files: .*a.txt.* is damaged'):
    _read(path)
  path.write_bytes(b'no such format')
  with pytest.raises(UserError, match=r'data.files: .*a.txt.* is damaged'):
    _read(path)


@pytest.mark.parametrize(
  ('line', 'message'),
  [
    ('{"text": ', 'the line is not JSON'),
    ('[' * 100_000, 'the line is not JSON'),
    ('"text"', r'the line is of type str\. Expected an object'),
    ('{"txt": "a"}', r"the line lacks data.field: unknown field 'text'. Did you mean 'txt'"),
    ('{"text": null}', r"field 'text' is null\. Expected text"),
    ('{"text": 3}', r"field 'text' is of type int\. Expected text"),
    ('{"text": "\\ud800"}', r"field 'text' is not UTF-8"),
  ],
)
def test_invalid_line_is_an_error_or_skipped(tmp_path, line, message):
  path = tmp_path / 'a.jsonl'
  path.write_text('{"text": "x"}\n' + line + '\n{"text": "y"}')
  with pytest.raises(UserError, match=rf'data.files: .*a.jsonl:2: {message}'):
    _read(path)
  assert _counted(path, invalid='skip') == (['x', 'y'], {'invalid documents skipped': 1})


def test_invalid_bytes_of_a_line_are_replaced_or_skipped(tmp_path):
  path = tmp_path / 'a.jsonl'
  path.write_bytes('{"text": "x\ufffd"}\n{"text": "caf'.encode() + b'\xe9 \xff"}\n')
  with pytest.raises(UserError, match=r'a.jsonl:2: the line is not UTF-8 \(invalid continuation'):
    _read(path)
  assert _counted(path, invalid='skip') == (['x\ufffd'], {'invalid documents skipped': 1})
  replaced = ['x\ufffd', 'caf\ufffd \ufffd']
  assert _counted(path, invalid='replace') == (
    replaced,
    {'invalid UTF-8 sequences replaced': 2},
  )


@pytest.mark.parametrize('block', [1, 3, 1 << 20])
@pytest.mark.parametrize('content', [b'caf\xe9 \xff\xef\xbf\xbd \xf0\x9f\x98\x80\xe6\x97'])
def test_invalid_bytes_of_text_are_counted_in_any_block(tmp_path, monkeypatch, block, content):
  monkeypatch.setattr(blocks, '_BLOCK', block)
  path = tmp_path / 'a.txt'
  path.write_bytes(content)
  replaced, skipped = content.decode('utf-8', 'replace'), content.decode('utf-8', 'ignore')
  count = replaced.count('\ufffd') - 1
  assert _counted(path, invalid='replace') == (
    [replaced],
    {'invalid UTF-8 sequences replaced': count},
  )
  assert _counted(path, invalid='skip') == ([skipped], {'invalid UTF-8 sequences skipped': count})


@pytest.mark.parametrize('write', [_write_parquet, _write_stream])
def test_rows_without_text_are_an_error_or_skipped(tmp_path, write):
  path = tmp_path / ('a.parquet' if write is _write_parquet else 'a.arrow')
  write(path, ['a', None, 'b'])
  with pytest.raises(UserError, match=r"data.files: .*: row 2: field 'text' is null. Expect"):
    _read(path)
  assert _counted(path, invalid='skip')[0] == ['a', 'b']
  with pytest.raises(UserError, match=r"data.field: .*unknown column 'tex'. Did you mean 'text'"):
    _read(path, field='tex')
  with pytest.raises(UserError, match=r"data.field: .*column 'id' is int64. Expected text"):
    _read(path, field='id')
  path.write_bytes(path.read_bytes()[:40])
  with pytest.raises(UserError, match=r'data.files: .* is damaged'):
    _read(path)
  with pytest.raises(UserError, match=r'data.files: cannot read .*gone'):
    _read(path.with_stem('gone'))


@pytest.mark.parametrize('kind', ['binary', 'large_string', 'dictionary'])
def test_column_may_have_any_kind_of_text(tmp_path, kind):
  texts, types = (
    ['a', 'b', 'a'],
    {'large_string': pyarrow.large_string(), 'binary': pyarrow.binary()},
  )
  types['dictionary'] = pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
  _write_parquet(
    tmp_path / 'a.parquet', [t.encode() if kind == 'binary' else t for t in texts], types[kind]
  )
  assert _read(tmp_path / 'a.parquet') == texts


def test_validation_tail_never_splits_a_document(tmp_path):
  (tmp_path / 'a.jsonl').write_text(_lines(['a' * 10, '', 'b' * 10, 'c' * 10, 'd' * 10]))
  read = lambda tail: [
    list(Text(files=str(tmp_path), val_tail=tail).documents(split)) for split in ('train', 'val')
  ]
  assert read(0.5) == [['a' * 10, '', 'b' * 10], ['c' * 10, 'd' * 10]]
  assert read(0.45) == [['a' * 10, '', 'b' * 10, 'c' * 10], ['d' * 10]]
  (tmp_path / 'b.txt').write_text('e' * 40)
  assert read(0.25) == [['a' * 10, '', 'b' * 10, 'c' * 10, 'd' * 10, 'e' * 20], ['e' * 20]]
  assert read(0.75)[1] == ['c' * 10, 'd' * 10, 'e' * 40]


def test_rejects_are_reported_and_kept_in_the_store(tmp_path, caplog):
  lines = ['{"text": "one"}', '{', '{"text": ""}', '{"text": "two"}', '3', '{"text": "six"}']
  (tmp_path / 'a.jsonl').write_text('\n'.join(lines))
  fields = {'tokenizer': Byte(), 'cache': str(tmp_path / 'c'), 'invalid': 'skip', 'val_tail': 0.3}
  corpus = Text(files=f'{tmp_path}/a.jsonl', **fields).corpus(2)
  names = {split: list(rows) for split, rows in corpus.store.meta['rejected'].items()}
  train = ['empty documents skipped', 'invalid documents skipped']
  assert names == {'train': train, 'val': train[1:]}
  messages = [record.getMessage() for record in caplog.records]
  assert messages == [
    'data: 1 empty documents skipped in the train split.',
    f'data: 1 invalid documents skipped in {tmp_path}/a.jsonl in the train split.',
    f'data: 1 invalid documents skipped in {tmp_path}/a.jsonl in the val split.',
  ]
  (tmp_path / 'b.jsonl').write_text('{}\n' * 3)
  with pytest.raises(UserError, match=r'no text to train on \(3 invalid documents skipped'):
    Text(files=f'{tmp_path}/b.jsonl', **fields).corpus(2)


def test_nul_is_text(tmp_path):
  (tmp_path / 'a').write_bytes(b'a\0b')
  assert _read(tmp_path / 'a') == ['a\0b']


def test_missing_packages_are_named_before_reading(tmp_path, monkeypatch):
  for name, package in (('a.zst', 'zstandard'), ('a.parquet', 'pyarrow')):
    (tmp_path / name).touch()
    monkeypatch.setitem(__import__('sys').modules, package, None)
    with pytest.raises(UserError, match=rf"{name} needs the package {package}.*'tfm\[files\]'"):
      Text(files=str(tmp_path / name)).check_sources()
