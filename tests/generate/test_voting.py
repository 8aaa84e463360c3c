"""Votes are counted as they should be, and examples stand where the form says."""

from math import comb

import jax
import numpy as np
import pytest

from tests.generate.models import MODELS, weights
from tfm.core.errors import UserError
from tfm.generate import generate
from tfm.generate.voting import after, few_shot, majority, vote
from tfm.parts.context import Run


class Letters:
  def encode(self, text):
    return [ord(c) - 60 for c in text]

  def decode(self, ids):
    return ''.join(chr(60 + i) for i in ids)


SPEC, TOK = MODELS['rope_gqa'], Letters()


def test_examples_come_before_the_question_in_the_same_form():
  assert few_shot([('a', 'b')], 'c') == 'Q: a\nA: b\n\nQ: c\nA:'
  assert few_shot([], 'c', form='<{}|{}>') == '<c|'
  assert few_shot([('{}', 'x')], 'q{}') == 'Q: {}\nA: x\n\nQ: q{}\nA:'
  with pytest.raises(
    UserError, match=r"few_shot: form='Q: \{\}' has 1 \{\}. Expected one for the question, one for"
  ):
    few_shot([], 'c', form='Q: {}')


def test_an_answer_is_parsed_out_of_the_form_it_was_asked_for_in():
  for answer in ('42', 'x = 3', 'a.b'):
    assert after('A:')(few_shot([('q', answer)], 'r', between='\n').rpartition('\nQ:')[0]) == answer
  assert after('A:')('A: 1.\nA: 2.') == '2'
  assert after('A:')('no answer') is None
  assert after('A:')('A: ') is None


def test_the_most_frequent_answer_wins_and_the_first_of_equals():
  assert majority(['b', 'a', 'a', None, None, None]) == 'a'
  assert majority(['b', 'a', 'a', 'b']) == 'b'
  assert majority([None]) is None


def test_five_that_are_right_six_times_in_ten_are_right_together_as_often_as_the_binomial_says():
  expected = sum(comb(5, k) * 0.6**k * 0.4 ** (5 - k) for k in (3, 4, 5))
  assert expected == pytest.approx(0.68256)
  right = np.random.default_rng(0).random((20_000, 5)) < 0.6
  won = np.mean([majority(row) for row in right.tolist()])
  assert abs(won - expected) < 4 * (expected * (1 - expected) / 20_000) ** 0.5


def test_a_vote_is_the_majority_of_the_samples_of_its_own_prompt():
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
    ({'n': 0}, 'vote: n=0 is no number of samples. Expected at least 1'),
    (
      {'n': 3, 'temperature': 0},
      'vote: n=3 samples at temperature=0 are all the same. Expected more, or n=1',
    ),
  ],
)
def test_mistakes_name_the_expected_value(options, message):
  with pytest.raises(UserError, match=message):
    vote(SPEC, {}, ['a'], parse=str, tokenizer=TOK, **options)
