import types

import pytest

from tfm.data import Text
from tfm.data.tokenizer import Char

TEXT = 'It was the best of times, it was the worst of times, it was the age of wisdom. ' * 120


@pytest.fixture(scope='session')
def data(tmp_path_factory):
  root = tmp_path_factory.mktemp('texts')
  for i in range(40):
    (root / f'{i:02}.txt').write_text(TEXT[i : i + 20 + (i * 37) % 400])
  files = str(root)
  return Text(
    files=files, tokenizer=Char(), length=64, batch=32, cache=str(tmp_path_factory.mktemp('cache'))
  )


@pytest.fixture
def model():
  """The properties of a plain decoder that tasks check. Arguments replace them."""
  plain = {
    'encoder': None,
    'lm': object(),
    'causal': True,
    'reads_prefix': False,
    'ahead': False,
  }
  return lambda **properties: types.SimpleNamespace(**plain | properties)
