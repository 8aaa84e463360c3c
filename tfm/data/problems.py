"""Problems with answers, for responses that the model generates."""

from collections.abc import Sequence
import dataclasses
import logging
from typing import Any

import numpy as np

from tfm.core.errors import UserError
from tfm.data.dataset import ArraySpec, Raw
from tfm.data.records import Ids, RecordData, Records, encoded_prompts


@dataclasses.dataclass(frozen=True)
class Problems(RecordData):
  """JSON lines `{"prompt": "...", "answer": "..."}`.

  A batch has `batch` problems. `length` is the number of tokens of a prompt and its response.
  Prompts that leave no room for a response are left out with a warning.
  """

  columns = ('prompt', 'answer')

  def open(self, task: Any) -> Records:
    splits = self.records()
    vocabulary, room = self.vocabulary(splits), self.length - task.tokens
    parts: dict[str, list[tuple[Ids, int]]] = {}
    texts: list[dict[str, str]] = []
    for split, records in splits.items():
      prompts = encoded_prompts(vocabulary, [r['prompt'] for r in records])
      part = [(ids, len(texts) + i) for i, ids in enumerate(prompts) if len(ids) <= room]
      if not part:
        raise UserError(
          f'data.length: {self.length} tokens leave {room} for a prompt, and the shortest prompt '
          f'of the {split} split has {min(map(len, prompts))}. Expected a larger length, or fewer '
          'task.tokens.'
        )
      if left_out := len(prompts) - len(part):
        logging.getLogger(__name__).warning(
          'data.length: %d of %d prompts of the %s split exceed %d tokens and are left out.',
          left_out, len(prompts), split, room,
        )  # fmt: skip
      parts[split] = part
      texts += records
    collate = lambda examples: _collate(examples, self.length)
    return Records(parts, collate, vocabulary, self.batch, tuple(texts))

  def specs(self) -> dict[str, ArraySpec]:
    return {
      'tokens': ArraySpec((self.batch, self.length), np.int32, 'BT'),
      'ends': ArraySpec((self.batch,), np.int32, 'B'),
      'record': ArraySpec((self.batch,), np.int64, 'B'),
    }


def _collate(examples: Sequence[tuple[Ids, int]], length: int) -> Raw:
  """Return `tokens` int32 [b, length], their `ends`, and the number of each `record`."""
  tokens = np.zeros((len(examples), length), np.int32)
  ends, records = np.zeros(len(examples), np.int32), np.zeros(len(examples), np.int64)
  for i, (ids, record) in enumerate(examples):
    tokens[i, : len(ids)], ends[i], records[i] = ids, len(ids), record
  return {'tokens': tokens, 'ends': ends, 'record': records}
