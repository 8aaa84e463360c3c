"""TFDS builders on small files in the formats of the packages.

They run in another process, which must not import TensorFlow.
"""

import gzip
import json
import os
from pathlib import Path
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
NOVELS = [['EMMA', '', 'By Jane', None, 'é'], ['MANSFIELD PARK', 'x'], ['PERSUASION', 'y']]
PROGRAM = """
import json, sys
from tfm.data import Tfds, builders
from tfm.data.builders import cmudict

def read(name):
  data = Tfds(name=name, data_dir='prepared', manual_dir='files')
  source = {split: data._source(split) for split in ('train', 'test')}
  return {split: [dict(row) for row in rows] for split, rows in source.items()}

out = {name: read(name) for name in builders.MODULES}
for rows in out['fashion_mnist_idx'].values():
  for row in rows:
    row.update(image=row['image'].tolist(), label=int(row['label']))
text = lambda value: value.decode() if isinstance(value, bytes) else int(value)
for name in set(out) - {'fashion_mnist_idx'}:
  for rows in out[name].values():
    rows[:] = [{key: text(value) for key, value in row.items()} for row in rows]
out['is_test'] = {word: cmudict.is_test(word) for word in json.loads(sys.argv[1])}
assert 'tensorflow' not in sys.modules
print(json.dumps(out))
"""
ERRORS = """
import sys
from tfm.core.errors import UserError
from tfm.data import Tfds
for name, fields in [(sys.argv[1], {}), (sys.argv[1], {'manual_dir': 'other'})]:
  try:
    Tfds(name=name, data_dir='prepared', **fields).identity()
  except UserError as error:
    print(error)
"""
WORDS = [f'WORD{i}' for i in range(60)]


def _r_vector(lines):
  strings = b''
  for line in lines:
    content = b'' if line is None else line.encode()
    strings += struct.pack('>ii', 0x40009, -1 if line is None else len(content)) + content
  encoding = struct.pack('>i', 5) + b'UTF-8'
  value = b'X\n' + struct.pack('>iii', 3, 0x40201, 0x30500) + encoding
  value += struct.pack('>ii', 16, len(lines)) + strings
  return struct.pack('>I', len(value)) + zlib.compress(value)


def _sword(folder, books):
  """Write the books of one testament, each a list of verses with markup."""
  folder.mkdir(parents=True, exist_ok=True)
  blocks, entries = [''], [(0, 0, 0)]
  for number, verses in enumerate(books, start=1):
    block = b''
    for verse in verses:
      content = verse.encode()
      entries.append((number, len(block), len(content)) if content else (0, 0, 0))
      block += content
    blocks.append(block.decode())
  for testament in ('ot', 'nt'):
    packed, sizes = b'', b''
    for block in blocks:
      content = zlib.compress(block.encode())
      sizes += struct.pack('<III', len(packed), len(content), len(block.encode()))
      packed += content
    (folder / f'{testament}.bzz').write_bytes(packed)
    (folder / f'{testament}.bzs').write_bytes(sizes)
    rows = b''.join(struct.pack('<IIH', *entry) for entry in entries)
    (folder / f'{testament}.bzv').write_bytes(rows)


def _idx(path, array):
  header = struct.pack(f'>BBBB{array.ndim}i', 0, 0, 8, array.ndim, *array.shape)
  path.write_bytes(gzip.compress(header + array.tobytes()))


def _write_files(folder):
  folder.mkdir()
  (folder / 'Rdata.rdb').write_bytes(b''.join(map(_r_vector, NOVELS)))
  for year in range(1790, 1801):
    (folder / f'{year}_some_one_n.txt').write_text(f'Address of {year} é.')
  lines = [f'{word}({i % 2})  P {i}' if i % 2 else f'{word}  P {i}' for i, word in enumerate(WORDS)]
  (folder / 'dict.txt').write_text('\n'.join([*lines, f'{WORDS[0]}(1)  P 99', '']))
  title = '<title type="main">Book</title><note>no</note>'
  verse = 'In <w lemma="a">the</w>  <note n="1">a <w>note</w></note>¶ day {}. <lb/>'
  books = [[title, *(verse.format(f'{b}.{v}') for v in range(2)), 'only one'] for b in range(6)]
  _sword(folder / 'engKJV2006eb', books)
  _sword(folder / 'spaRV1909eb', [[*book[:-1], ''] for book in books])
  rng = np.random.default_rng(0)
  for name, n in (('train', 5), ('t10k', 2)):
    _idx(folder / f'{name}-images-idx3-ubyte.gz', rng.integers(0, 256, (n, 28, 28), np.uint8))
    _idx(folder / f'{name}-labels-idx1-ubyte.gz', np.arange(n).astype(np.uint8))


def _run(program, folder, *words):
  env = {**os.environ, 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'}
  command = [sys.executable, '-c', program, *words]
  done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
  return done.stdout


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
  folder = tmp_path_factory.mktemp('builders')
  _write_files(folder / 'files')
  return json.loads(_run(PROGRAM, folder, json.dumps(WORDS)).splitlines()[-1])


def _all(rows, key):
  return [[row[key] for row in rows[split]] for split in ('train', 'test')]


def test_last_novel_is_for_testing(prepared):
  train, test = _all(prepared['jane_austen'], 'text')
  assert sorted(train) == ['EMMA\n\nBy Jane\n\né\n', 'MANSFIELD PARK\nx\n']
  assert test == ['PERSUASION\ny\n']


def test_every_tenth_address_is_for_testing(prepared):
  train, test = _all(prepared['state_of_the_union'], 'year')
  assert test == [1799]
  assert sorted(train) == [*range(1790, 1799), 1800]
  assert prepared['state_of_the_union']['test'][0] == {
    'year': 1799,
    'speaker': 'some_one_n',
    'text': 'Address of 1799 é.',
  }


def test_pronunciations_of_a_word_are_in_one_split(prepared):
  train, test = _all(prepared['cmudict'], 'word')
  assert sorted([*train, *test]) == sorted([*WORDS, WORDS[0]])
  assert set(test) == {word for word, held_out in prepared['is_test'].items() if held_out} != set()
  assert not set(train) & set(test)


def test_verses_are_pairs_without_markup_by_book(prepared):
  train, test = _all(prepared['kjv_rv1909'], 'english')
  assert sorted(set(train)) == [f'In the day {b}.{v}.' for b in range(6) for v in range(2)]
  # The 12 books are numbered over both testaments. The 11th is for testing.
  assert sorted(test) == ['In the day 4.0.', 'In the day 4.1.']
  assert {row['book'] for row in prepared['kjv_rv1909']['test']} == {10}
  for row in prepared['kjv_rv1909']['train']:
    assert row['english'] == row['spanish']


def test_images_keep_the_original_split(prepared):
  train, test = _all(prepared['fashion_mnist_idx'], 'label')
  assert (sorted(train), sorted(test)) == ([0, 1, 2, 3, 4], [0, 1])
  rng = np.random.default_rng(0)
  first = rng.integers(0, 256, (5, 28, 28), np.uint8)[3].tolist()
  assert [r['image'] for r in prepared['fashion_mnist_idx']['train'] if r['label'] == 3] == [first]


def test_missing_files_are_named(tmp_path):
  (tmp_path / 'other').mkdir()
  (tmp_path / 'other' / 'README').touch()
  lines = _run(ERRORS, tmp_path, 'jane_austen').splitlines()
  out = [line for line in lines if line.startswith('data')]
  assert 'data.manual_dir: jane_austen is made of files that you download (manual_dir has' in out[0]
  assert 'data.manual_dir: other has no Rdata.rdb. Expected it from the R package' in out[1]
