"""TensorFlow Datasets, in separate processes.

It must not import TensorFlow, which the test process may have imported.
"""

import os
from pathlib import Path
import shutil
import subprocess
import sys

import pytest

HERE = Path(__file__).parent
BEGIN = """
import dataclasses, sys
from tfm import data
from tfm.data.tokenizer import Byte
options = dict(tokenizer=Byte(), isolate=True, batch=4)
spec = data.Tfds(name='tiny_lines', data_dir='data', cache='cache', **options)
"""


def _run(program, folder, imported=True):
  begin = BEGIN + 'import tiny_lines.tiny_lines\n' * imported
  env = {
    **os.environ,
    'PYTHONPATH': os.pathsep.join([str(HERE), str(HERE.parents[1])]),
    'JAX_PLATFORMS': 'cpu',
  }
  done = subprocess.run(
    [sys.executable, '-c', begin + program],
    cwd=folder,
    env=env,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  return done.stdout


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
  folder = tmp_path_factory.mktemp('tfds')
  _run('spec._builder()', folder)
  return folder


def test_tfds_dataset_becomes_a_corpus_without_tensorflow(prepared):
  out = _run(
    """
corpus = spec.corpus(16, overlap=1)
assert sorted(spec.documents('val')) == [f'line {i} é\\n' for i in range(20, 25)]
text = corpus.vocabulary.decode(corpus.store.splits['train'].tokens)
assert sorted(text.splitlines()) == sorted(f'line {i} é' for i in range(20))
assert corpus.batch('train', 0, 0)['tokens'].shape == (4, 16)
assert 'tensorflow' not in sys.modules
print('fine')
""",
    prepared,
  )
  assert out.endswith('fine\n')


def test_missing_datasets_are_named(prepared):
  out = _run(
    """
fields = [('name', 'tiny_line'), ('val_split', 'dev'), ('feature', 'words'), ('feature', 'number')]
for name, value in fields:
  try:
    list(dataclasses.replace(spec, **{name: value}).documents('val'))
  except data.textdata.UserError as error:
    print(error)
""",
    prepared,
  )
  for line in (
    "data.name: TFDS has no dataset 'tiny_line'",
    "data: tiny_lines has no split 'dev'. Expected test or train.",
    "data.feature: tiny_lines has no feature 'words'. Expected number or text.",
    "data.feature: 'number' of tiny_lines is int. Expected text.",
  ):
    assert line in out


@pytest.mark.parametrize('imported', [True, False], ids=['with its code', 'from its files'])
def test_other_format_suggests_the_preparing_command(prepared, tmp_path, imported):
  folder = shutil.copytree(prepared / 'data', tmp_path / 'data') / 'tiny_lines' / '1.0.0'
  info = folder / 'dataset_info.json'
  info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
  for file in folder.glob('*array_record*'):
    file.rename(folder / file.name.replace('array_record', 'tfrecord'))
  program = """
try:
  list(spec.documents('val'))
except data.textdata.UserError as error:
  print(error)
"""
  out = _run(program, tmp_path, imported)
  assert "data.name: TFDS cannot open 'tiny_lines' as ArrayRecord" in out
  assert 'tfds build tiny_lines --file_format=array_record' in out


def test_missing_package_suggests_the_install_command(tmp_path):
  out = _run(
    """
sys.modules['array_record'] = None
try:
  spec.corpus(16)
except data.textdata.UserError as error:
  print(error)
""",
    tmp_path,
    imported=False,
  )
  assert "need the package array_record. Expected it installed, by: pip install 'tfm[tfds]'" in out


def test_dataset_without_a_name_is_an_error():
  from tfm.data import Tfds

  assert list(Tfds().check()) == [
    'name: is empty. Expected the name of a TFDS dataset, such as lm1b or wiki40b/en.'
  ]
