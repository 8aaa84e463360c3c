import pytest

from tfm.data import Text
from tfm.data.tokenizer import Char

WORDS = 'the quick brown fox jumps over a lazy dog while five boxing wizards wait\n'


@pytest.fixture(scope='session')
def folder(tmp_path_factory):
  """Two hundred documents of different lengths."""
  root = tmp_path_factory.mktemp('texts')
  for i in range(200):
    (root / f'{i:03}.txt').write_text(WORDS[: 5 + (i * 7) % 60] * (1 + i % 5))
  return root


@pytest.fixture(scope='session')
def data(folder, tmp_path_factory):
  return Text(
    files=str(folder),
    tokenizer=Char(),
    length=16,
    batch=8,
    cache=str(tmp_path_factory.mktemp('cache')),
  )
