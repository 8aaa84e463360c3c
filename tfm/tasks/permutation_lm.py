"""Predict the last tokens of a random order from those before them, wherever they stand (XLNet,
arXiv:1906.08237).
"""

from collections.abc import Iterator
import dataclasses
from typing import Any

import numpy as np

from tfm.data import stateless_rng
from tfm.data.base import Data
from tfm.data.corpus import RawBatch
from tfm.data.dataset import ArraySpec
from tfm.data.textdata import TextData
from tfm.tasks.base import Features
from tfm.tasks.text import TextTask, document_specs, documents, one_stack, text_specs


@dataclasses.dataclass(frozen=True)
class PermutationLM(TextTask):
  """-log p(x_{z_t} | x_{z_<t}) of the last n / `one_in` tokens (the paper's K) of an order z of a
  document of n.

  Every row draws the order of its documents anew each epoch. Special tokens come first, and so are
  only read; a document of fewer than `one_in` tokens has no targets. `ordered` keeps the tokens
  that are only read in their order too, as the paper has them; without it they see each other, as
  in the paper's code and as when it is fine-tuned.

  *Differs*: targets are single tokens, where the code draws spans of up to 5; one text a row,
  without a second segment."""

  one_in: int = 6
  ordered: bool = True

  def features(self, raw: RawBatch, dataset: Any) -> Features:
    tokens, segments = raw['tokens'], raw['segments']
    n = tokens.shape[1]
    special = dataset.vocabulary.is_special[tokens]
    drawn = stateless_rng.uniform(raw['key'], 'order', n) - special
    place, size = _places(segments, drawn)
    chosen = (place >= size - size // self.one_in) & (segments > 0) & ~special
    at = np.argsort(~chosen, axis=1, kind='stable')[:, : n // self.one_in]
    there = np.take_along_axis(chosen, at, 1)
    order = place if self.ordered else np.where(chosen, place + 1, 0)
    out = {
      'input_ids': tokens,
      'order_ids': order.astype(np.int32),
      'target_positions': np.where(there, at, -1).astype(np.int32),
      'labels': np.where(there, np.take_along_axis(tokens, at, 1), 0).astype(np.int32),
      'weights': there.astype(np.float32),
    }
    # Every token sees the padding of a short last row, so rows say where it is even if they are not
    # packed.
    return out | {'segment_ids': segments} | documents(raw, dataset.isolate)

  def specs(self, model: Any, data: Any) -> dict[str, ArraySpec]:
    inputs = text_specs(data.batch, data.length, 'input_ids', 'order_ids', 'segment_ids')
    asked = text_specs(
      data.batch, data.length // self.one_in, 'target_positions', 'labels', letter='P'
    )
    return inputs | asked | document_specs(data)

  def fits(self, model: Any) -> Iterator[str]:
    yield from one_stack('permutation_lm', model)
    if not getattr(model.embed, 'query', False):
      yield (
        'task: permutation_lm asks what stands at a place by a vector that the model has not. '
        'Choose model.embed.query=true.'
      )
    if model.encoder is None and not model.masked:
      yield (
        'task: permutation_lm would show the model its labels: a mixer or a router of it tells '
        'tokens of others '
        'whatever their order. Choose mixer=attention and router=top_k without a capacity.'
      )
    if model.mtp is not None or model.classifier is not None:
      yield 'task: permutation_lm asks one head of tokens. Expected model.mtp=none and no head classify.'

  def fits_data(self, data: Data) -> Iterator[str]:
    yield from super().fits_data(data)
    if isinstance(data, TextData) and data.length < self.one_in:
      yield f'data.length: is {data.length}, and one token in {self.one_in} is predicted. Expected {self.one_in} or more.'

  def check(self) -> Iterator[str]:
    yield from super().check()
    if self.one_in < 2:
      yield f'one_in: is {self.one_in}, and the first of an order is told nothing. Expected 2 or more.'


def _places(segments: np.ndarray, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """(each token's place, from 0, in the order of `drawn` in its document, that document's tokens),
  int64 [b, n].
  """
  rows, count = np.arange(len(segments))[:, None], int(segments.max(initial=0)) + 1
  size = np.zeros((len(segments), count), np.int64)
  np.add.at(size, (rows, segments), 1)
  begin = np.cumsum(size, 1) - size
  place = np.empty(segments.shape, np.int64)
  np.put_along_axis(
    place, np.lexsort((drawn, segments), axis=-1), np.arange(segments.shape[1])[None], 1
  )
  return place - begin[rows, segments], size[rows, segments]
