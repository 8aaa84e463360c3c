"""Few-shot prompts, answer parsing, and majority votes."""

from math import comb

import jax
import numpy as np
import pytest

from tests.generate.models import MODELS, weights
from tfm.core.errors import UserError
from tfm.generate import answer_after, few_shot, generate, majority, vote
from tfm.parts.context import Run


class Letters:
  def encode(self, text):
    return [ord(c) - 60 for c in text]

  def decode(self, ids):
    return ''.join(chr(60 + i) for i in ids)


SPEC, TOK = MODELS['rope_gqa'], Letters()


def test_few_shot_puts_examples_before_the_question():
  assert few_shot([('a', 'b')], 'c') == 'Q: a\nA: b\n\nQ: c\nA:'
  assert few_shot([], 'c', form='<{}|{}>') == '<c|'
  assert few_shot([('{}', 'x')], 'q{}') == 'Q: {}\nA: x\n\nQ: q{}\nA:'
  with pytest.raises(
    UserError,
    match=r"few_shot: form='Q: \{\}' has 1 \{\}. Expected one for the question and one for",
  ):
    few_shot([], 'c', form='Q: {}')


def test_answer_after_parses_few_shot_answers():
  for answer in ('42', 'x = 3', 'a.b'):
    shot = few_shot([('q', answer)], 'r', between='\n').rpartition('\nQ:')[0]
    assert answer_after('A:')(shot) == answer
  assert answer_after('A:')('A: 1.\nA: 2.') == '2'
  assert answer_after('A:')('no answer') is None
  assert answer_after('A:')('A: ') is None


def test_majority_is_the_first_most_frequent_answer():
  assert majority(['b', 'a', 'a', None, None, None]) == 'a'
  assert majority(['b', 'a', 'a', 'b']) == 'b'
  assert majority([None]) is None


def test_majority_vote_accuracy_matches_binomial():
  expected = sum(comb(5, k) * 0.6**k * 0.4 ** (5 - k) for k in (3, 4, 5))
  assert expected == pytest.approx(0.68256)
  right = np.random.default_rng(0).random((20_000, 5)) < 0.6
  won = np.mean([majority(row) for row in right.tolist()])
  assert abs(won - expected) < 4 * (expected * (1 - expected) / 20_000) ** 0.5


def test_vote_is_the_majority_per_prompt():
  options = {
    'tokenizer': TOK,
    'max_new_tokens': 3,
    'temperature': 0.7,
    'key': jax.random.key(3),
    'run': Run(),
  }
  texts = generate(SPEC, weights(SPEC), ['ab'] * 4 + ['cba'] * 4, **options)
  parse = lambda text: text[0]
  expected = [majority(map(parse, texts[:4])), majority(map(parse, texts[4:]))]
  assert vote(SPEC, weights(SPEC), ['ab', 'cba'], n=4, parse=parse, **options) == expected


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'n': 0}, 'vote: n=0 is too small. Expected at least 1 sample'),
    (
      {'n': 3, 'temperature': 0},
      'vote: all n=3 samples are equal at temperature=0. Expected temperature > 0, or n=1',
    ),
  ],
)
def test_invalid_options_name_the_expected_value(options, message):
  with pytest.raises(UserError, match=message):
    vote(SPEC, {}, ['a'], parse=str, tokenizer=TOK, **options)
