"""Preference pairs as padded token sequences."""

import json
import types

import numpy as np
import pytest

from tfm.core.errors import UserError
from tfm.data import Preferences
from tfm.data.tokenizer import Byte

TASK = types.SimpleNamespace(window=lambda length: length + 1)
PAIRS = [('ab', 'cd', 'e'), ('', 'x', 'yz'), ('a long prompt', 'good', 'worse'), ('q', 'r', 's')]
END = 256


def write(path, rows):
  path.write_text('\n'.join(json.dumps(row) for row in rows) + '\n')
  return str(path)


def rows():
  return [dict(zip(('prompt', 'chosen', 'rejected'), pair, strict=True)) for pair in PAIRS]


@pytest.fixture
def source(tmp_path):
  return Preferences(files=write(tmp_path / 'p.jsonl', rows()), tokenizer=Byte(), length=8, batch=4)


def text(ids):
  return ''.join('$' if i == END else chr(i) for i in ids)


def test_pairs_share_their_prompt_and_end_with_the_end_token(source):
  raw = source.open(TASK).batch('train', 0, 0)
  found = {}
  for tokens, start, ends in zip(raw['tokens'], raw['starts'], raw['ends'], strict=True):
    whole = [text(t[:end]) for t, end in zip(tokens, ends, strict=True)]
    found[whole[0][start:]] = whole, start
  assert found['cd$'] == (['abcd$', 'abe$'], 2)
  # An empty prompt is the end token.
  assert found['x$'] == (['$x$', '$yz$'], 1)
  # Nine tokens leave three for the prompt.
  assert found['good$'] == (['mptgood$', 'mptworse$'], 3)


def test_batches_are_permutations_and_slices_agree(source):
  data = source.open(TASK)
  one, two = data.batch('train', 0, 0), data.batch('train', 0, 1)
  order = lambda raw: sorted(map(bytes, raw['tokens']))
  assert order(one) == order(two)
  part = data.batch('train', 0, 1, slice(1, 3))
  for name, value in two.items():
    np.testing.assert_array_equal(value[1:3], part[name])
  specs = source.specs()
  assert {n: (one[n].shape, one[n].dtype) for n in specs} == {
    n: (s.shape, np.dtype(s.dtype)) for n, s in specs.items()
  }


def test_evaluation_pads_with_weight_zero(tmp_path, source):
  source = Preferences(
    files=source.files, val_files=source.files, tokenizer=Byte(), length=8, batch=3
  )
  *_, last = source.open(TASK).eval_batches('val', 3)
  assert last['weights'].tolist() == [1, 0, 0]


@pytest.mark.parametrize('line', ['{"prompt": "a"}', 'no json', '[1]'])
def test_damaged_lines_are_named(tmp_path, line):
  path = tmp_path / 'p.jsonl'
  path.write_text(json.dumps(rows()[0]) + '\n\n' + line)
  with pytest.raises(UserError, match='line 3: is '):
    Preferences(files=str(path), tokenizer=Byte()).open(TASK)


def test_missing_and_empty_files_are_errors(tmp_path):
  with pytest.raises(
    UserError, match=r'data.files: no file matches .* Expected a path, a glob or a folder'
  ):
    Preferences(files=str(tmp_path / '*.jsonl')).check_sources()
  (tmp_path / 'e.jsonl').write_text('')
  with pytest.raises(UserError, match=r"has no lines. Expected JSON lines with 'prompt' and"):
    Preferences(files=str(tmp_path / 'e.jsonl'), tokenizer=Byte()).open(TASK)
