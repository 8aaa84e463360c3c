"""Documents with weights multiply the loss of their tokens."""

import numpy as np
import pytest

from tests.data.test_preferences import write
from tfm.core.errors import UserError
from tfm.data import Weighted
from tfm.data.tokenizer import Byte
from tfm.tasks import CausalLM, MaskedLM

ROWS = [{'text': 'aaaa', 'weight': 0.5}, {'text': 'bbb', 'weight': 0}, {'text': 'cc'}]
EXPECTED = {'a': 0.5, 'b': 0.0, 'c': 1.0}


def source(tmp_path, rows, **fields):
  files = write(tmp_path / 'w.jsonl', rows)
  return Weighted(
    files=files, tokenizer=Byte(), length=6, batch=2, cache=str(tmp_path / 'cache'), **fields
  )


@pytest.mark.parametrize('isolate', [False, True])
def test_each_token_has_the_weight_of_its_document(tmp_path, isolate):
  data, task = source(tmp_path, ROWS, isolate=isolate), CausalLM()
  corpus, seen = data.open(task), set()
  for step in range(3):
    batch = task.features(corpus.batch('train', 0, step), corpus)
    for label, weight in zip(batch['labels'].flat, batch['weights'].flat, strict=True):
      if (letter := chr(label)) in EXPECTED and weight:
        assert weight == EXPECTED[letter]
        seen.add(letter)
  assert seen == {'a', 'c'}
  assert batch['weights'].dtype == np.float32


def test_messages(tmp_path):
  for weight in (-1, 'high', float('nan')):
    with pytest.raises(UserError, match='weight of document 1 is'):
      source(tmp_path, [{'text': 'a' * 20, 'weight': weight}]).open(CausalLM())
  assert list(MaskedLM().fits_data(source(tmp_path, ROWS))) == [
    'task: masked_lm ignores the token weights of this source. Expected causal_lm.'
  ]
  assert list(Weighted().check()) == [
    'files: is empty. Expected a path, a glob, or several of them with commas.'
  ]
