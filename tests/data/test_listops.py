"""Tests of the ListOps generator."""

import numpy as np
import pytest

from tfm.data.listops import SYMBOLS, ListOps, block_of, value
from tfm.tasks import Classify

SMALL = ListOps(batch=8, train=300, val=100, test=0, min_length=5, max_length=60)


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
  cache = str(tmp_path_factory.mktemp('listops'))
  return ListOps(**{**vars(SMALL), 'cache': cache}).open(Classify())


def _python_value(text):
  """Evaluate an expression through Python's own parser, as nested calls."""
  calls = {'[MIN': 'min(', '[MAX': 'max(', '[MED': 'med(', '[SM': 'sm(', ']': '),'}
  code = ''.join(calls.get(word, f'{word},') for word in text.split())
  median = lambda *args: int(np.median(args))
  return eval(code.rstrip(','), {'med': median, 'sm': lambda *args: sum(args) % 10})


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('[MAX 2 9 [MIN 4 7 ] 0 ]', 9),
    ('[MED 1 2 4 9 ]', 3),
    ('[MED 3 4 ]', 3),
    ('[SM 7 8 [SM 9 9 ] ]', 3),
    ('5', 5),
  ],
  ids=lambda value: f'value={value}' if isinstance(value, int) else f'text={value[:4].strip("[ ")}',
)
def test_values_of_known_expressions(text, expected):
  assert value([SYMBOLS.index(word) for word in text.split()]) == expected


def test_labels_are_the_values_of_the_expressions(dataset):
  raw = dataset.batch('train', 0, 0)
  for ids, mask, label in zip(raw['input_ids'], raw['attention_mask'], raw['labels'], strict=True):
    assert 5 < mask.sum() < 60
    assert (ids[mask == 0] == 0).all()
    assert _python_value(' '.join(SYMBOLS[i - 1] for i in ids[mask == 1])) == label


def test_an_epoch_has_each_expression_once_and_splits_share_none(dataset):
  train = [dataset.batch('train', 0, step)['input_ids'] for step in range(38)]
  val = [raw['input_ids'][raw['weights'] > 0] for raw in dataset.eval_batches('val', 32)]
  seen = {row.tobytes() for row in np.concatenate(train)[:300]}
  held_out = {row.tobytes() for row in np.concatenate(val)}
  assert (len(seen), len(held_out), len(seen & held_out)) == (300, 100, 0)


def test_hosts_read_slices_of_the_same_batch(dataset):
  whole = dataset.batch('train', 1, 7)
  for start in (0, 4):
    part = dataset.batch('train', 1, 7, slice(start, start + 4))
    assert all((part[name] == whole[name][start : start + 4]).all() for name in whole)


def test_share_of_operators_and_classes():
  """At p = 1/4 and 2 to 10 arguments, longer expressions have more nested operators."""
  examples = block_of(SMALL, 0) + block_of(SMALL, 1)
  assert block_of(SMALL, 1)[0] == examples[500]
  symbols = np.frombuffer(b''.join(tokens for tokens, _ in examples), np.uint8)
  operators = np.bincount(symbols, minlength=15)[10:14]
  share = operators / operators.sum()
  assert np.abs(share - 1 / 4).max() < 4 * np.sqrt(3 / 16 / operators.sum())
  assert len({label for _, label in examples}) == 10


def test_impossible_sizes_are_refused():
  assert any('min_length' in line for line in ListOps(min_length=20, max_length=22).check())
