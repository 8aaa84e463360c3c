"""Metrics of generated texts against their libraries, and intervals."""

import sys

import numpy as np
import pytest

from tfm.core.errors import UserError
from tfm.evaluate import TABLE, interval, score

OUTPUTS = ['the cat sat on the mat', 'a dog', 'hello there world', '', 'Birds fly south in winter']
SINGLE = [
  ['the cat sat on a mat'], ['a dog'], ['hello world'], ['missing'],
  ['birds fly south in the winter'],
]  # fmt: skip
SEVERAL = [[*texts, 'a dog ran'] if i % 2 else texts for i, texts in enumerate(SINGLE)]


@pytest.mark.parametrize('name', ['bleu', 'chrf'])
def test_corpus_scores_match_sacrebleu(name):
  sacrebleu = pytest.importorskip('sacrebleu')
  whole = getattr(sacrebleu, f'corpus_{name}')
  streams = [[texts[0] for texts in SINGLE]]
  found = score([name], OUTPUTS, SINGLE)[name]
  assert found.value == pytest.approx(whole(OUTPUTS, streams).score)
  assert found.low < found.value < found.high
  assert 'version:' in found.note
  second = [texts[1] if len(texts) > 1 else None for texts in SEVERAL]
  several = score([name], OUTPUTS, SEVERAL)[name].value
  assert several == pytest.approx(whole(OUTPUTS, [*streams, second]).score)


def test_error_rates_match_jiwer():
  jiwer = pytest.importorskip('jiwer')
  texts = [reference for (reference,) in SINGLE]
  found = score(['wer', 'per', 'cer'], OUTPUTS, SINGLE)
  assert found['wer'].value == found['per'].value == pytest.approx(100 * jiwer.wer(texts, OUTPUTS))
  assert found['cer'].value == pytest.approx(100 * jiwer.cer(texts, OUTPUTS))
  # The best reference counts: one substitution of three words, not two of two.
  assert score(['wer'], ['a b d'], [['x y', 'a b c']])['wer'].value == pytest.approx(100 / 3)


def test_rouge_matches_its_package():
  scorer = pytest.importorskip('rouge_score.rouge_scorer').RougeScorer(['rougeL'], use_stemmer=True)
  of = lambda output, text: scorer.score(text, output)['rougeL'].fmeasure
  expected = np.mean([of(o, text) for o, (text,) in zip(OUTPUTS, SINGLE, strict=True)])
  assert score(['rouge'], OUTPUTS, SINGLE)['rouge'].value == pytest.approx(100 * expected)


def test_exact_match_and_f1_take_the_best_reference():
  references = [['c', 'a b'], ['cat', 'dog'], ['x y']]
  found = score(['exact_match', 'f1'], [' a b', 'The cat!', 'x'], references)
  assert found['exact_match'].value == pytest.approx(100 / 3)
  assert found['f1'].value == pytest.approx(100 * (1 + 1 + 2 / 3) / 3)


def test_interval_covers_the_mean_as_often_as_it_should():
  rng, inside = np.random.default_rng(0), 0
  for seed in range(200):
    values = rng.random(60) < 0.7
    rows = np.stack([values, np.ones(60)], 1).astype(float)
    low, high = interval(rows, lambda sums: sums[0] / sums[1], seed, 200)
    inside += low <= 0.7 <= high
  assert 178 <= inside <= 199
  again = interval(rows, lambda sums: sums[0] / sums[1], seed, 200)
  assert again == (low, high)


def test_unknown_metric_and_missing_package_are_errors(monkeypatch):
  with pytest.raises(UserError, match=r"unknown metric 'blue'. Did you mean 'bleu'"):
    score(['blue'], OUTPUTS, SINGLE)
  monkeypatch.setitem(sys.modules, 'jiwer', None)
  with pytest.raises(UserError, match=r"jiwer is missing. Expected pip install 'tfm\[eval\]'"):
    score(['wer'], OUTPUTS, SINGLE)
  assert sorted(TABLE) == list(TABLE)
