"""Pairs of responses to a prompt, the better one first."""

from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np

from tfm.data.dataset import ArraySpec, Raw
from tfm.data.records import Ids, RecordData, Records, encoded_prompts, encoded_responses


@dataclasses.dataclass(frozen=True)
class Preferences(RecordData):
  """JSON lines `{"prompt": "...", "chosen": "...", "rejected": "..."}`.

  Both responses follow the same prompt, and end with the end token. If a pair exceeds the length,
  the start of its prompt is left out, down to one token, and then the end of a response.
  """

  columns = ('prompt', 'chosen', 'rejected')

  def open(self, task: Any) -> Records:
    window = task.window(self.length)
    splits = self.records()
    vocabulary = self.vocabulary(splits)
    parts = {}
    for split, records in splits.items():
      prompts = encoded_prompts(vocabulary, [r['prompt'] for r in records])
      chosen = encoded_responses(vocabulary, [r['chosen'] for r in records])
      rejected = encoded_responses(vocabulary, [r['rejected'] for r in records])
      parts[split] = [*zip(prompts, chosen, rejected, strict=True)]
    return Records(parts, lambda pairs: _collate(pairs, window), vocabulary, self.batch)

  def specs(self) -> dict[str, ArraySpec]:
    return {
      'tokens': ArraySpec((self.batch, 2, self.length + 1), np.int32, 'B-T'),
      'starts': ArraySpec((self.batch,), np.int32, 'B'),
      'ends': ArraySpec((self.batch, 2), np.int32, 'B-'),
    }


def _collate(pairs: Sequence[tuple[Ids, Ids, Ids]], window: int) -> Raw:
  """Return padded pairs.

  Args:
    pairs: Prompt, chosen and rejected response of each example.
    window: Tokens of a sequence.

  Returns:
    `tokens` int32 [b, 2, window], chosen first; `starts` int32 [b], the first token of the
    responses; `ends` int32 [b, 2], the end of each.
  """
  tokens = np.zeros((len(pairs), 2, window), np.int32)
  starts, ends = np.zeros(len(pairs), np.int32), np.zeros((len(pairs), 2), np.int32)
  for i, (prompt, *responses) in enumerate(pairs):
    room = window - max(map(len, responses))
    prompt = prompt[-max(room, 1) :]
    starts[i] = len(prompt)
    for j, response in enumerate(responses):
      whole = np.concatenate([prompt, response])[:window]
      tokens[i, j, : len(whole)], ends[i, j] = whole, len(whole)
  return {'tokens': tokens, 'starts': starts, 'ends': ends}
