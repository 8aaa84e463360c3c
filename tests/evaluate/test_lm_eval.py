"""The requests of lm-eval, with imitated request objects, and in the harness if it is installed."""

import math
import types

import pytest

from tests.generate.models import MODELS, weights
from tfm.core.errors import UserError
from tfm.data.tokenizer.char import CharVocabulary
from tfm.evaluate import lm_eval as adapter
from tfm.generate import log_likelihoods
from tfm.hub.loaded import Loaded

TOKENIZER = CharVocabulary(' abcdefgh', unknown=False).with_specials(('eos',))


@pytest.fixture(scope='module')
def loaded():
  return Loaded(MODELS['learned'], weights(MODELS['learned']), TOKENIZER)


def _requests(*arguments):
  return [types.SimpleNamespace(args=args) for args in arguments]


def test_likelihoods_follow_the_conventions_of_lm_eval(loaded):
  model = adapter.Requests(loaded=loaded, batch_size=2)
  found = model.loglikelihood(_requests(('ab ', 'cd'), ('', 'ab')))
  eos = TOKENIZER.eos
  pairs = [([1, 2], [0, 3, 4]), ([eos], [1, 2])]
  assert found == [tuple(x) for x in log_likelihoods(loaded.spec, loaded.params, pairs, batch=2)]


def test_rolling_likelihood_counts_each_token_once(loaded):
  text = 'abcdefgh' * 3
  whole = adapter.Requests(loaded=loaded).loglikelihood_rolling(_requests((text,)))
  assert whole == [pytest.approx(_direct(loaded, text, 48), rel=1e-5)]
  short = adapter.Requests(loaded=loaded, length=10).loglikelihood_rolling(_requests((text,)))
  assert short == [pytest.approx(_direct(loaded, text, 10), rel=1e-5)]
  assert not math.isclose(whole[0], short[0])


def _direct(loaded, text, length):
  ids, total = [TOKENIZER.eos, *TOKENIZER.encode(text).tolist()], 0.0
  for start in range(1, len(ids), length):
    pair = ids[start - 1 : start], ids[start : start + length]
    total += log_likelihoods(loaded.spec, loaded.params, [pair], batch=8)[0].log_prob
  return total


def test_generation_ends_before_a_stop_text(loaded):
  model = adapter.Requests(loaded=loaded, batch_size=2)
  plain, same, cut = model.generate_until(_requests(
    ('ab', {'until': [], 'max_gen_toks': 6}),
    ('ab', {'until': [], 'max_gen_toks': 6, 'temperature': 1.0}),
    ('ab', {'until': 'never', 'max_gen_toks': 6}),
  ))  # fmt: skip
  assert plain == same == cut
  assert plain
  middle = plain[2]
  (stopped,) = model.generate_until(_requests(('ab', {'until': [middle], 'max_gen_toks': 6})))
  assert stopped == plain[: plain.index(middle)]


def test_harness_runs_a_task(loaded):
  harness = pytest.importorskip('lm_eval')
  from lm_eval.api.task import ConfigurableTask

  rows = [{'q': 'ab', 'choices': ['c', 'd'], 'a': 0}, {'q': 'ef', 'choices': ['g', 'h'], 'a': 1}]
  datasets = pytest.importorskip('datasets')
  task = ConfigurableTask(config={
    'task': 'tiny', 'output_type': 'multiple_choice', 'test_split': 'test',
    'custom_dataset': lambda **ignored: {'test': datasets.Dataset.from_list(rows)},
    'doc_to_text': '{{q}}', 'doc_to_choice': '{{choices}}', 'doc_to_target': 'a',
    'metric_list': [{'metric': 'acc'}],
  })  # fmt: skip
  model = adapter.register()(loaded=loaded)
  found = harness.simple_evaluate(model=model, tasks=[task], bootstrap_iters=0)
  answers = []
  for row in rows:
    scored = model.loglikelihood(_requests(*((row['q'], f' {c}') for c in row['choices'])))
    answers.append(scored[row['a']][0] == max(log_prob for log_prob, _ in scored))
  assert found['results']['tiny']['acc,none'] == sum(answers) / 2


def test_models_that_do_not_fit_and_missing_package_are_errors(monkeypatch, loaded):
  with pytest.raises(UserError, match='Expected a decoder with a tokenizer'):
    adapter.Requests(loaded=loaded._replace(tokenizer=None))
  monkeypatch.setitem(__import__('sys').modules, 'lm_eval.api', None)
  monkeypatch.setitem(__import__('sys').modules, 'lm_eval', None)
  with pytest.raises(UserError, match='Expected pip install lm-eval'):
    adapter.register()
