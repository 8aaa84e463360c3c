"""Pairs of texts for next-sentence prediction (BERT, arXiv:1810.04805)."""

from collections.abc import Iterator

import numpy as np

from tfm.data import stateless_rng
from tfm.data.corpus import Corpus, RawBatch
from tfm.data.textdata import TextData
from tfm.tasks.base import Features
from tfm.tasks.model import TaskModel
from tfm.tasks.text import one_document

#: Special tokens of a pair, [CLS] A [SEP] B [SEP].
SPECIALS = 3


def pairs(raw: RawBatch, key: np.ndarray, dataset: Corpus) -> Features:
  """Return sequences [CLS] A [SEP] B [SEP], half of them with a random B.

  A sequence is split at a random token into A and B, which are text of any length and not whole
  sentences. A random B, of the same length, is text at a random place of the training split, also
  in evaluation.

  Args:
    raw: Sequences of `length - SPECIALS` tokens.
    key: The random key of each sequence, uint64 [b].
    dataset: The corpus.

  Returns:
    `tokens`, `segment_ids` and `token_type_ids` int32 [b, length], and `next_sentence_label` int32
    [b]: 0 if B follows A, 1 if it is random. Padding sequences are all 0.
  """
  tokens, size = raw['tokens'], (raw['segments'] > 0).sum(1)[:, None]
  n = tokens.shape[1]
  split, random, place = stateless_rng.uniform(key, 'next sentence', 3).T[..., None]
  first = 1 + (split * np.maximum(size - 1, 1)).astype(np.int64)
  random = random < 0.5
  text = dataset.store.splits['train'].tokens
  start = (place * max(len(text) - n + 1, 1)).astype(np.int64)
  other = text[np.minimum(start + np.arange(n), len(text) - 1)].astype(np.int32)
  tokens = np.where(random & (np.arange(n) >= first), other, tokens)
  at = np.arange(n + SPECIALS)[None]
  end = size + SPECIALS - 1
  inside = (at <= end) & (size > 0)
  second = at > first + 1
  # A begins at place 1, and B two places after its place in the raw sequence.
  source = np.clip(at - 1 - second, 0, n - 1)
  (begin,), (separator,) = dataset.frame
  out = np.where(at == 0, begin, np.take_along_axis(tokens, source, 1))
  out = np.where((at == first + 1) | (at == end), separator, out)
  return {
    'tokens': np.where(inside, out, 0).astype(np.int32),
    'segment_ids': inside.astype(np.int32),
    'token_type_ids': (second & inside).astype(np.int32),
    'next_sentence_label': (random & (size > 0))[:, 0].astype(np.int32),
  }


def fits(model: TaskModel) -> Iterator[str]:
  """Yield a message for each part that a model lacks for next-sentence prediction."""
  head = model.classifier
  if head is None or head.labels != 2 or head.pick == 'each':
    yield (
      'task.next_sentence: needs a head that classifies pairs. Expected '
      "model.heads.classify='classify(labels=2,hidden=tanh)'."
    )
  if getattr(model.embed, 'types', 0) < 2:
    yield (
      'task.next_sentence: needs two token types, and the model has '
      f'{getattr(model.embed, "types", 0)}. Expected model.embed.types=2.'
    )


def fits_data(data: TextData) -> Iterator[str]:
  """Yield a message for each reason why `data` has no pairs."""
  yield from one_document(data, 'a pair has text of two places in one sequence')
  if data.length < SPECIALS + 2:
    yield (
      f'data.length: is {data.length}, too short for two texts and {SPECIALS} special tokens. '
      f'Expected {SPECIALS + 2} or more.'
    )


def suits(dataset: Corpus) -> Iterator[str]:
  """Yield a message if the tokenizer frames a text with other tokens than [CLS] and [SEP]."""
  if [len(ids) for ids in dataset.frame] != [1, 1]:
    yield (
      f'task.next_sentence: the tokenizer puts {[*dataset.frame.begin]} before a text and '
      f'{[*dataset.frame.end]} after it. Expected one token each, as in BERT.'
    )
