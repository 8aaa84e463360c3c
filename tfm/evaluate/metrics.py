"""Metrics of generated texts: one function and one row of `TABLE` for each."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
import importlib
import itertools
import re
import string
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tfm.core.errors import UserError
from tfm.core.registry import Table

References = Sequence[Sequence[str]]
Floats = NDArray[np.float64]


class Measured(NamedTuple):
  """The statistics of a metric. Their sums over examples determine its value.

  Attributes:
    rows: float64 [examples, k].
    value: Returns the metric of the sums [k].
    note: The settings of the metric, such as the signature of sacrebleu.
  """

  rows: Floats
  value: Callable[[Floats], float]
  note: str = ''


Metric = Callable[[Sequence[str], References], Measured]


def bleu(outputs: Sequence[str], references: References) -> Measured:
  """Corpus BLEU of sacrebleu (Papineni et al., 2002), with tokenisation 13a."""
  return _sacrebleu('BLEU', outputs, references)


def chrf(outputs: Sequence[str], references: References) -> Measured:
  """Corpus chrF2 of sacrebleu (Popovic, 2015): character n-grams up to 6."""
  return _sacrebleu('CHRF', outputs, references)


def exact_match(outputs: Sequence[str], references: References) -> Measured:
  """Percentage of outputs that equal a reference, without outer spaces."""
  return _best(lambda output, text: float(output.strip() == text.strip()), outputs, references)


def f1(outputs: Sequence[str], references: References) -> Measured:
  """Mean F1 of words (SQuAD, arXiv:1606.05250), with the best reference of each example.

  Case, punctuation and English articles are ignored.
  """
  return _best(_word_f1, outputs, references)


def wer(outputs: Sequence[str], references: References) -> Measured:
  """Word error rate of jiwer in percent of all reference words.

  Each example uses the reference with the lowest rate.
  """
  return _error_rate('process_words', outputs, references)


def per(outputs: Sequence[str], references: References) -> Measured:
  """Phoneme error rate: the error rate of symbols between spaces."""
  return _error_rate('process_words', outputs, references)


def cer(outputs: Sequence[str], references: References) -> Measured:
  """Character error rate of jiwer in percent of all reference characters."""
  return _error_rate('process_characters', outputs, references)


def rouge(outputs: Sequence[str], references: References) -> Measured:
  """Mean ROUGE-L F1 of the package rouge-score with stemming (Lin, 2004).

  Each example uses the reference with the highest score.
  """
  scorer = _library('rouge_score.rouge_scorer').RougeScorer(['rougeL'], use_stemmer=True)
  of = lambda output, text: float(scorer.score(text, output)['rougeL'].fmeasure)
  return _best(of, outputs, references)


TABLE = Table(
  'metric', bleu=bleu, cer=cer, chrf=chrf, exact_match=exact_match, f1=f1, per=per, rouge=rouge,
  wer=wer,
)  # fmt: skip


def mean(values: Iterable[float]) -> Measured:
  """Return the mean of a value for each example, in percent."""
  rows = np.array([(value, 1.0) for value in values], np.float64)
  return Measured(rows, lambda sums: 100 * float(sums[0] / sums[1]))


def _best(
  of: Callable[[str, str], float], outputs: Sequence[str], references: References
) -> Measured:
  """Return the mean of `of(output, reference)` for the best reference of each output."""
  values = []
  for output, texts in zip(outputs, references, strict=True):
    values.append(max(of(output, text) for text in texts))
  return mean(values)


def _sacrebleu(name: str, outputs: Sequence[str], references: References) -> Measured:
  metric = getattr(_library('sacrebleu.metrics'), name)()
  # sacrebleu takes the n-th references of all examples together, and skips None.
  streams = [list(nth) for nth in itertools.zip_longest(*references)]
  rows = np.array(metric._extract_corpus_statistics(list(outputs), streams), np.float64)
  score = lambda sums: float(metric._compute_score_from_stats(sums.astype(int).tolist()).score)
  return Measured(rows, score, str(metric.get_signature()))


def _error_rate(function: str, outputs: Sequence[str], references: References) -> Measured:
  process = getattr(_library('jiwer'), function)
  rows = []
  for output, texts in zip(outputs, references, strict=True):
    found = [_errors(process(text, output)) for text in texts]
    rows.append(min(found, key=lambda row: row[0] / max(row[1], 1)))
  rate = lambda sums: 100 * float(sums[0] / max(sums[1], 1))
  return Measured(np.array(rows, np.float64), rate)


def _errors(result: Any) -> tuple[int, int]:
  """Return the number of errors, and of reference units."""
  wrong = result.substitutions + result.deletions
  return wrong + result.insertions, wrong + result.hits


def _word_f1(output: str, text: str) -> float:
  found, expected = _normalised(output), _normalised(text)
  common = (Counter(found) & Counter(expected)).total()
  if not found or not expected:
    return float(found == expected)
  return 2 * common / (len(found) + len(expected))


def _normalised(text: str) -> list[str]:
  without = text.lower().translate(str.maketrans('', '', string.punctuation))
  return re.sub(r'\b(a|an|the)\b', ' ', without).split()


def _library(name: str) -> Any:
  try:
    return importlib.import_module(name)
  except ImportError as error:
    raise UserError(
      f"metrics: the package {error.name} is missing. Expected pip install 'tfm[eval]'."
    ) from error
