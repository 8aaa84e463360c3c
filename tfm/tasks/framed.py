"""The base of tasks on whole texts with special tokens around them."""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tfm.data.base import Data
from tfm.data.corpus import Corpus, RawBatch
from tfm.data.dataset import ArraySpec, Dataset
from tfm.data.textdata import TextData
from tfm.tasks.base import Features, Task


@dataclasses.dataclass(frozen=True)
class FramedTask(Task):
  """A task on texts, each of them an example.

  Attributes:
    framed: Add the special tokens of a published tokenizer's prompts to texts: [CLS] ... [SEP] for
      BERT, only the begin token for Llama. With a learnt tokenizer, texts begin with 'cls' and
      end with 'eos'.
  """

  framed: bool = dataclasses.field(default=True, kw_only=True)

  overlap = 0

  @property
  def adds_special_tokens(self) -> bool:
    return self.framed

  def window(self, length: int) -> int:
    """Return the raw tokens of a sequence of `length` tokens, with a learnt tokenizer."""
    return length - 2 * self.framed

  def lengths(self, length: int) -> tuple[int, ...]:
    """Return the tokens of a text in each tower."""
    return (length,)

  def specials(self, length: int) -> tuple[str, ...]:
    """Return the names of the special tokens in texts."""
    del length
    return ('cls', 'eos') if self.framed else ()

  def sequence_lengths(self, data: Data) -> tuple[int, ...]:
    return self.lengths(data.length) if isinstance(data, TextData) else ()

  def text_features(self, raw: RawBatch, dataset: Dataset) -> Features:
    """Return `input_ids` and `attention_mask` [b, T], and `weights` [b], which are 0 for padding.

    Args:
      raw: The raw texts.
      dataset: The corpus.

    Returns:
      The features, with special tokens if `framed`.
    """
    tokens, mask = raw['tokens'], (raw['segments'] > 0).astype(np.int32)
    weights = (mask[:, 0] > 0).astype(np.float32)
    if self.framed:
      assert isinstance(dataset, Corpus)
      tokens, mask = with_frame(tokens, mask, *dataset.frame)
    return {'input_ids': tokens * mask, 'attention_mask': mask, 'weights': weights}


def framed_specs(data: TextData) -> dict[str, ArraySpec]:
  """Return the arrays of `FramedTask.text_features`."""
  tokens = ArraySpec((data.batch, data.length), np.int32, 'BT')
  weights = ArraySpec((data.batch,), np.float32, 'B')
  return {'input_ids': tokens, 'attention_mask': tokens, 'weights': weights}


def with_frame(
  tokens_BT: NDArray[Any], mask_BT: NDArray[Any], begin: tuple[int, ...], end: tuple[int, ...]
) -> tuple[NDArray[Any], NDArray[Any]]:
  """Return sequences with special tokens before and after the text, and their attention mask.

  Args:
    tokens_BT: Token ids.
    mask_BT: 1 for tokens, and 0 for padding after them.
    begin: The ids before a text.
    end: The ids after it.

  Returns:
    Token ids and attention mask, int32.
  """
  B, T = len(tokens_BT), tokens_BT.shape[1] + len(begin) + len(end)
  framed_BT = np.zeros((B, T), np.int32)
  framed_BT[:, : len(begin)] = begin
  framed_BT[:, len(begin) : len(begin) + tokens_BT.shape[1]] = tokens_BT
  after_B = len(begin) + mask_BT.sum(1)
  for i, token in enumerate(end):
    framed_BT[np.arange(B), after_B + i] = token
  return framed_BT, (np.arange(T) < (after_B + len(end))[:, None]).astype(np.int32)
