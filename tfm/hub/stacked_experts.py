"""Experts that a checkpoint keeps in one tensor a layer, for families whose experts have a tensor
each.
"""

from collections.abc import Iterator
import re

import numpy as np

from tfm.hub.names import key
from tfm.hub.tensors import Entry, Tensors
from tfm.zoo.weights import Published, tensor_map

_STACKED = re.compile(r'(.*\.experts)\.(gate_up_proj|down_proj)$')
#: The projections that a stacked tensor `[E, out, in]` holds, one after the other along `out`.
_PARTS = {'gate_up_proj': ('gate_proj', 'up_proj'), 'down_proj': ('down_proj',)}


def unstack_experts(tensors: Tensors, published: Published) -> Tensors:
  """Return the tensors with an entry for each expert where the family names them so, and the file
  stacks them.

  Qwen3.5 and models saved from the parameters of transformers 5 are written so.
  """
  stacked = {name: found for name in tensors if (found := _STACKED.fullmatch(name))}
  if not stacked:
    return tensors
  family = published.family
  wanted = {key(family, t.name) for t in tensor_map(family, published.spec, published.ending)}
  entries: dict[str, Entry] = {}
  for name, entry in tensors.entries.items():
    parts = dict(_parts(name, entry)) if name in stacked else {}
    entries |= parts if any(key(family, part) in wanted for part in parts) else {name: entry}
  return Tensors(entries)


def _parts(name: str, entry: Entry) -> Iterator[tuple[str, Entry]]:
  found = _STACKED.fullmatch(name)
  if found is None or len(entry.shape) != 3:
    return
  names = _PARTS[found[2]]
  size = entry.shape[1] // len(names)
  for expert in range(entry.shape[0]):
    for i, part in enumerate(names):
      yield (
        f'{found[1]}.{expert}.{part}.weight',
        _Expert(entry, expert, slice(i * size, (i + 1) * size)),
      )


class _Expert:
  """Some rows of one expert of a stacked tensor; a view of it."""

  def __init__(self, whole: Entry, expert: int, rows: slice):
    self.whole, self.expert, self.rows = whole, expert, rows
    self.shape, self.dtype = (rows.stop - rows.start, whole.shape[2]), whole.dtype

  def array(self) -> np.ndarray:
    return self.whole.array()[self.expert, self.rows]

  def chunks(self) -> Iterator[np.ndarray]:
    yield self.array()

  def release(self) -> None:
    self.whole.release()
