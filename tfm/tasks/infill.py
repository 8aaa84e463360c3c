"""Infilling: predict the middle of a document after its prefix and suffix."""

from collections.abc import Iterator
import dataclasses
import itertools
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tfm.data import stateless_rng
from tfm.data.corpus import Corpus, RawBatch
from tfm.data.dataset import Dataset
from tfm.tasks.base import Features
from tfm.tasks.model import TaskModel
from tfm.tasks.text import TextTask, next_token, one_stack

#: The special tokens, in the order prefix, suffix, middle.
NAMES = ('fim_prefix', 'fim_suffix', 'fim_middle')


@dataclasses.dataclass(frozen=True)
class Infill(TextTask):
  """Next-token prediction with fill-in-the-middle (FIM, arXiv:2207.14255).

  A share of the documents is cut at two random tokens and rearranged, in one of two orders:

  - PSM: <prefix> prefix <suffix> suffix <middle> middle
  - SPM: <prefix> <suffix> suffix <middle> prefix middle

  All tokens are predicted. A document is a run of text between special tokens, within a segment
  (context-level FIM). It keeps its place and length, so its suffix loses the last three tokens to
  the special tokens. Documents of fewer than five tokens are unchanged. Cuts are between tokens;
  the paper also cuts between the characters of a token, which needs the text.

  Attributes:
    rate: The share of documents that are rearranged.
    spm: The share of these in SPM order.
  """

  rate: float = 0.5
  spm: float = 0.5

  overlap = 1

  def window(self, length: int) -> int:
    return length + 1

  def specials(self, length: int) -> tuple[str, ...]:
    del length
    return NAMES

  def features(self, raw: RawBatch, dataset: Dataset) -> Features:
    assert isinstance(dataset, Corpus)
    vocabulary = dataset.vocabulary
    ids = np.array([[vocabulary.special(name)] for name in NAMES], np.int32)
    tokens = raw['tokens'].copy()
    runs = text_runs(raw['segments'], vocabulary.is_special[tokens])
    most = max((run.number for run in runs), default=0) + 1
    draws = stateless_rng.uniform(raw['key'], 'infill', 4 * most).reshape(len(tokens), most, 4)
    for row, number, start, stop in runs:
      change, order, *cuts = draws[row, number]
      if change < self.rate and stop - start >= len(NAMES) + 2:
        text = tokens[row, start:stop]
        text[:] = rearranged(text, ids, cuts, order < self.spm)
    return next_token(raw | {'tokens': tokens}, dataset.isolate)

  def fits(self, model: TaskModel) -> Iterator[str]:
    yield from one_stack('infill', model)
    if model.encoder is None and not model.causal:
      yield (
        'task: infill needs a causal model, but a mask or a router of the model leaks later '
        'tokens, which are its labels. Expected mask=causal and router=top_k.'
      )

  def check(self) -> Iterator[str]:
    yield from super().check()
    for name in ('rate', 'spm'):
      if not 0 <= (share := getattr(self, name)) <= 1:
        yield f'{name}: is {share}. Expected a share from 0 to 1.'


class Run(NamedTuple):
  """A run of text tokens in a batch.

  Attributes:
    row: The sequence.
    number: The number of the run in the sequence, from 0.
    start: The first token.
    stop: The end.
  """

  row: int
  number: int
  start: int
  stop: int


def text_runs(segments: NDArray[np.int32], special: NDArray[np.bool_]) -> list[Run]:
  """Return the runs of ordinary tokens between special tokens and the borders of segments.

  Args:
    segments: Document numbers [b, n]. 0 is padding.
    special: Which tokens are special [b, n].

  Returns:
    The runs, in order.
  """
  kind = np.pad(np.where(special, 0, segments), ((0, 0), (1, 1)))
  runs = []
  for row, column in enumerate(kind):
    edges = np.flatnonzero(column[1:] != column[:-1]).tolist()
    pairs = itertools.pairwise(edges)
    inside = [(start, stop) for start, stop in pairs if column[start + 1]]
    runs += [Run(row, number, *bound) for number, bound in enumerate(inside)]
  return runs


def rearranged(
  text: NDArray[np.int32], ids: NDArray[np.int32], cuts: Any, spm: bool
) -> NDArray[np.int32]:
  """Return a document in the order of fill-in-the-middle, with the same number of tokens.

  Args:
    text: The tokens. The last three are left out.
    ids: The special tokens for prefix, suffix and middle, [3, 1].
    cuts: Two random numbers in [0, 1).
    spm: Whether the order is SPM, otherwise PSM.

  Returns:
    The rearranged tokens.
  """
  kept = text[: -len(NAMES)]
  places = sorted(int(cut * (len(kept) + 1)) for cut in cuts)
  prefix, middle, suffix = np.split(kept, places)
  to_prefix, to_suffix, to_middle = ids
  if spm:
    return np.concatenate([to_prefix, to_suffix, suffix, to_middle, prefix, middle])
  return np.concatenate([to_prefix, prefix, to_suffix, suffix, to_middle, middle])
