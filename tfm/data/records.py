"""JSON lines of texts as a dataset of examples in memory."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
import functools
import hashlib
import json
import operator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tfm.core.errors import UserError, unknown
from tfm.data import pairfiles, stateless_rng
from tfm.data.base import Data
from tfm.data.dataset import Raw
from tfm.data.framing import Framing, prompt_frame
from tfm.data.paths import expand
from tfm.data.tokenizer import Bpe, Tokenizer, Vocabulary

Record = Mapping[str, Any]
Ids = NDArray[np.int32]


@dataclasses.dataclass(frozen=True)
class RecordData(Data):
  """A source of JSON lines.

  Attributes:
    files: A path, a glob, or several of them with commas. Each line is a JSON object.
    val_files: The validation files, in the same form. Empty for no validation.
    tokenizer: Reads a published vocabulary, or learns one from the texts.
    length: Tokens of a model sequence.
  """

  files: str = ''
  val_files: str = ''
  tokenizer: Tokenizer = dataclasses.field(default_factory=Bpe)
  length: int = 256

  #: The names in a line. All values are texts.
  columns: ClassVar[tuple[str, ...]] = ('prompt',)

  def records(self) -> dict[str, list[dict[str, str]]]:
    """Return the lines of each split.

    Raises:
      UserError: A file is missing or damaged, or a line lacks a field.
    """
    splits = {'train': read_records('data.files', self.files, self.columns)}
    if self.val_files:
      splits['val'] = read_records('data.val_files', self.val_files, self.columns)
    return splits

  def vocabulary(self, splits: Mapping[str, Sequence[Record]]) -> Vocabulary:
    """Return the vocabulary of the tokenizer, which has an end token.

    Raises:
      UserError: A published tokenizer has no end token.
    """
    found = self.tokenizer.fixed()
    if found is None or not found.published:
      parts = operator.itemgetter(*self.columns)
      texts = lambda split: map(parts, splits.get(split, ()))
      return (found or self.tokenizer.learn(texts)).with_specials(('eos',))
    if found.eos is None:
      raise UserError(
        'data.tokenizer: has no end token, which ends each response. Expected a tokenizer.json in '
        'one folder with its tokenizer_config.json.'
      )
    return found

  def check_sources(self) -> None:
    for name in ('files', 'val_files'):
      if value := getattr(self, name):
        record_paths(f'data.{name}', value)

  def check(self) -> Iterator[str]:
    yield from super().check()
    if not self.files:
      yield 'files: is empty. Expected a path, a glob, or several of them with commas.'
    if self.length < 2:
      yield f'length: is {self.length}. Expected 2 or more.'


def encoded_prompts(vocabulary: Vocabulary, texts: Sequence[str]) -> list[Ids]:
  """Return the ids of prompts, with the begin tokens of a published tokenizer.

  An empty prompt is the end token, so that the first token of its response is predicted.
  """
  frame = prompt_frame(vocabulary) if vocabulary.published else Framing()
  found = []
  for ids in vocabulary.encode_batch(texts):
    whole = np.concatenate([np.asarray(frame.begin, np.int32), ids])
    found.append(whole if len(whole) else np.asarray([vocabulary.eos], np.int32))
  return found


def encoded_responses(vocabulary: Vocabulary, texts: Sequence[str]) -> list[Ids]:
  """Return the ids of responses to a prompt, with the end token."""
  end = np.asarray([vocabulary.eos], np.int32)
  return [np.concatenate([ids, end]) for ids in vocabulary.continuation.encode_batch(texts)]


@dataclasses.dataclass(frozen=True)
class Records:
  """A dataset of examples in memory. Batches are pure functions of (seed, step).

  Attributes:
    parts: The examples of each split.
    collate: Returns the arrays of some examples.
    vocabulary: The vocabulary of the texts.
    batch_size: The size of the global training batch.
    texts: The lines that examples refer to.
  """

  parts: Mapping[str, Sequence[Any]]
  collate: Callable[[Sequence[Any]], Raw]
  vocabulary: Vocabulary
  batch_size: int
  texts: Sequence[Record] = ()

  @property
  def names(self) -> Sequence[str]:
    """No class names."""
    return ()

  @property
  def splits(self) -> tuple[str, ...]:
    return tuple(self.parts)

  @functools.cached_property
  def fingerprint(self) -> str:
    digest = hashlib.sha256()
    for split, part in self.parts.items():
      digest.update(split.encode())
      for example in part:
        for name, array in sorted(self.collate([example]).items()):
          digest.update(f'{name} {array.shape} '.encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()

  def batch(self, split: str, seed: int, step: int, examples: slice | None = None) -> Raw:
    """Return a batch of an endless sequence of epochs, each a different permutation.

    Args:
      split: Name of the split.
      seed: The seed of the order.
      step: The number of the batch.
      examples: The slice of the batch to return. Defaults to all.

    Returns:
      The arrays of `collate`, with `sample` and `key`.
    """
    part = self._part(split)
    within = np.arange(self.batch_size, dtype=np.int64)[examples or slice(None)]
    sample = within + step * self.batch_size
    index, _ = stateless_rng.shuffled(sample, len(part), seed, split)
    arrays = self.collate([part[i] for i in index.tolist()])
    return {**arrays, 'sample': sample, 'key': stateless_rng.example_keys(sample, seed, split)}

  def eval_steps(self, split: str, batch: int) -> int:
    """Return the number of batches of `eval_batches` with `every=1`."""
    return -(-len(self._part(split)) // batch)

  def eval_batches(
    self, split: str, batch: int, examples: slice | None = None, every: int = 1
  ) -> Iterator[Raw]:
    """Yield each example of a split once, in order. Padding has weight 0 in `weights`.

    Args:
      split: Name of the split.
      batch: The size of the global batch.
      examples: The slice of each batch to yield. Defaults to all.
      every: Yield the first batch, and each `every`-th batch after it.

    Yields:
      The arrays of `collate`, with `sample`, `key` and `weights`.
    """
    part = self._part(split)
    for step in range(0, self.eval_steps(split, batch), every):
      sample = np.arange(step * batch, (step + 1) * batch, dtype=np.int64)[examples or slice(None)]
      inside = sample < len(part)
      arrays = self.collate([part[i] for i in np.where(inside, sample, 0).tolist()])
      key = stateless_rng.mix(stateless_rng.word(f'eval of {split}'), sample)
      yield {**arrays, 'sample': sample, 'key': key, 'weights': inside.astype(np.float32)}

  def _part(self, split: str) -> Sequence[Any]:
    if split not in self.parts:
      raise UserError(f'data: {unknown("split", split, self.splits)}')
    return self.parts[split]


def record_paths(where: str, files: str) -> list[Path]:
  """Return the files of a path, a glob, a folder, or several of them with commas.

  Raises:
    UserError: No file matches.
  """
  found = expand(files, where)
  for path in found:
    if not path.is_file():
      raise UserError(
        f'{where}: no file matches {str(path)!r}. Expected a path, a glob or a folder.'
      )
  return found


def read_records(where: str, files: str, fields: Sequence[str]) -> list[dict[str, Any]]:
  """Return the lines of files.

  Args:
    where: The config field, for errors.
    files: A path, a glob, or several of them with commas.
    fields: The names of texts that each line needs.

  Returns:
    The objects.

  Raises:
    UserError: A file is missing or empty, a line is no object, or lacks a text.
  """
  found = []
  for path in record_paths(where, files):
    for number, line in enumerate(pairfiles.lines(path), 1):
      if line.strip():
        found.append(_record(f'{where}: {path} line {number}', line, fields))
  if not found:
    raise UserError(f'{where}: {files} has no lines. Expected JSON lines with {_listed(fields)}.')
  return found


def _record(where: str, line: str, fields: Sequence[str]) -> dict[str, Any]:
  try:
    value = json.loads(line)
  except ValueError as error:
    raise UserError(f'{where}: is not JSON ({error}). Expected an object in each line.') from error
  if not isinstance(value, dict) or not all(isinstance(value.get(f), str) for f in fields):
    raise UserError(f'{where}: is {line.strip()!r:.80}. Expected texts {_listed(fields)}.')
  return value


def _listed(fields: Sequence[str]) -> str:
  return ' and '.join(map(repr, fields))
