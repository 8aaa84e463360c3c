"""Questions with choices: few-shot prompts, accuracy and votes."""

import json
import re

import pytest

from tests.generate.models import MODELS, weights
from tfm.core.errors import UserError
from tfm.data.tokenizer.char import CharVocabulary
from tfm.evaluate import FewShot, choices, evaluate_choices, evaluate_votes
from tfm.generate import rank
from tfm.hub.loaded import Loaded

TOKENIZER = CharVocabulary('\n :AQabcdefgh', unknown=False)


@pytest.fixture
def questions(tmp_path):
  rows = [
    {'question': 'ab', 'choices': ['c', 'd', 'ee'], 'answer': 1},
    {'question': 'cd', 'choices': ['e', 'f'], 'answer': 'f'},
    {'prompt': 'gh', 'choices': [' a', ' b'], 'answer': 0},
  ]
  path = tmp_path / 'a.jsonl'
  path.write_text('\n'.join(map(json.dumps, rows)) + '\n\n')
  return choices.read(path)


@pytest.fixture(scope='module')
def loaded():
  return Loaded(MODELS['rope_gqa'], weights(MODELS['rope_gqa']), TOKENIZER)


def test_prompts_have_worked_examples_and_no_space_at_the_end(questions):
  assert FewShot().prompt(questions, 0) == ('Q: ab\nA:', ' ')
  assert FewShot().prompt(questions, 2) == ('gh', '')
  prompt, space = FewShot(1, pool=(questions[1],)).prompt(questions, 0)
  assert (prompt, space) == ('Q: cd\nA: f\n\nQ: ab\nA:', ' ')
  assert FewShot(form='{}={}').prompt(questions, 0) == ('ab=', '')


def test_examples_are_other_questions_drawn_by_seed(questions):
  drawn = {FewShot(2, seed=seed).prompt(questions, 0)[0] for seed in range(8)}
  assert len(drawn) == 2
  assert all(prompt.count('ab') == 1 for prompt in drawn)
  with pytest.raises(UserError, match='--shots: is 3, but there are 2 other questions'):
    FewShot(3).prompt(questions, 0)


def test_accuracy_counts_the_best_ranked_choices(loaded, questions):
  prompts = [FewShot().prompt(questions, i)[0] for i in range(3)]
  texts = [[' c', ' d', ' ee'], [' e', ' f'], [' a', ' b']]
  ranked = rank(loaded.spec, loaded.params, prompts, texts, TOKENIZER, 'bytes')
  right = [r.best == best for r, best in zip(ranked, (1, 1, 0), strict=True)]
  found = evaluate_choices(loaded, questions, normalise='bytes')['accuracy']
  assert found.value == pytest.approx(100 * sum(right) / 3)


def test_votes_are_compared_with_the_answers(loaded, questions):
  found = evaluate_votes(loaded, questions, 3, max_new_tokens=2)['accuracy']
  assert 0 <= found.value <= 100
  always = [question._replace(answer='') for question in questions]
  assert evaluate_votes(loaded, always, 1, marker='never', max_new_tokens=2)['accuracy'].value == 0


@pytest.mark.parametrize(
  ('line', 'message'),
  [
    ('', 'has no questions'),
    ('{', 'line 1 is not JSON'),
    ('[]', 'Expected a JSON object'),
    ('{"text": "a"}', 'line 1 has text. Expected the text question or prompt'),
    ('{"prompt": "a", "choices": "b", "answer": 0}', 'Expected a list of texts'),
    ('{"prompt": "a", "choices": ["b"], "answer": 1}', 'answer is 1. Expected the index or text'),
    ('{"prompt": "a", "choices": ["b"], "answer": "c"}', "answer is 'c'. Expected the index"),
  ],
)
def test_wrong_questions_are_errors(tmp_path, line, message):
  (tmp_path / 'a.jsonl').write_text(line)
  with pytest.raises(UserError, match=re.escape(message)):
    choices.read(tmp_path / 'a.jsonl')


def test_questions_without_choices_need_votes(loaded):
  question = choices.Question('ab', (), 'c', 'Q: {}\nA: {}')
  with pytest.raises(UserError, match=r'has no choices. Expected choices, or --vote=N'):
    evaluate_choices(loaded, [question])
