"""Sizes of an open dataset, for `tfm data`."""

from typing import Any

from tfm.data import rejects
from tfm.data.corpus import Corpus
from tfm.data.dataset import Dataset
from tfm.data.mixed import MixedCorpus
from tfm.data.store import Store


def summary(dataset: Dataset) -> dict[str, dict[str, Any]]:
  """Return the sizes of each split as JSON.

  Args:
    dataset: The dataset.

  Returns:
    The sizes by split. Text has documents, characters, bytes, tokens, bytes per token, sequences
    of a training epoch, and the counts of rejected text. `characters` is None where they were not
    counted. The parts of a mixture are `SPLIT:NAME`. Other datasets have the number of examples.
  """
  if isinstance(dataset, MixedCorpus):
    rows: dict[str, dict[str, Any]] = {}
    for name, corpus in dataset.corpora.items():
      rows |= {f'{split}:{name}': row for split, row in summary(corpus).items()}
    return rows
  if not isinstance(dataset, Corpus):
    return {split: {'examples': dataset.eval_steps(split, 1)} for split in dataset.splits}
  meta = dataset.store.meta
  rows = {}
  for split, row in meta['splits'].items():
    rows[split] = {
      'documents': row['documents'],
      'characters': row.get('characters'),
      'bytes': row['bytes'],
      'tokens': row['tokens'],
      'bytes per token': row['bytes'] / row['tokens'],
      'sequences per epoch': dataset.size(split),
      'rejected': meta.get('rejected', {}).get(split, {}),
    }
  return rows


def stores(dataset: Dataset) -> list[Store]:
  """Return the token stores of a dataset, one for each part of a mixture."""
  if isinstance(dataset, MixedCorpus):
    return [corpus.store for corpus in dataset.corpora.values()]
  return [dataset.store] if isinstance(dataset, Corpus) else []


def first_text(dataset: Dataset, split: str = 'train') -> str | None:
  """Return the decoded text of the first sequence of a split, or None without text."""
  if dataset.vocabulary is None:
    return None
  raw = next(iter(dataset.eval_batches(split, 1)))
  if not {'tokens', 'segments'} <= set(raw):
    return None
  return dataset.vocabulary.decode(raw['tokens'][0][raw['segments'][0] > 0])


def rejected_lines(row: dict[str, Any]) -> list[str]:
  """Return a sentence for each reason for which text of a split was skipped or replaced."""
  return list(rejects.lines(row.get('rejected', {})))
