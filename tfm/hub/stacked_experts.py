"""Split the stacked expert tensors of a checkpoint into one tensor per expert."""

from collections.abc import Iterator
import re

import numpy as np

from tfm.hub.names import key
from tfm.hub.tensors import Entry, Tensors
from tfm.zoo.weights import Published, tensor_map

_STACKED = re.compile(r'(.*\.experts)\.(gate_up_proj|down_proj)$')
#: The projections in a stacked tensor `[E, out, in]`, concatenated along `out`.
_PARTS = {'gate_up_proj': ('gate_proj', 'up_proj'), 'down_proj': ('down_proj',)}


def unstack_experts(tensors: Tensors, published: Published) -> Tensors:
  """Return the tensors with stacked experts split, if the family has one tensor per expert.

  Qwen3.5 and models saved from the parameters of transformers 5 have stacked experts.

  Args:
    tensors: The tensors of the checkpoint.
    published: The model that `config.json` describes.
  """
  stacked = {name: found for name in tensors if (found := _STACKED.fullmatch(name))}
  if not stacked:
    return tensors
  family = published.family
  mapped = tensor_map(family, published.spec, published.ending)
  expected = {key(family, t.name) for t in mapped}
  entries: dict[str, Entry] = {}
  for name, entry in tensors.entries.items():
    parts = dict(_parts(name, entry)) if name in stacked else {}
    is_split = any(key(family, part) in expected for part in parts)
    entries |= parts if is_split else {name: entry}
  return Tensors(entries)


def _parts(name: str, entry: Entry) -> Iterator[tuple[str, Entry]]:
  found = _STACKED.fullmatch(name)
  if found is None or len(entry.shape) != 3:
    return
  names = _PARTS[found[2]]
  size = entry.shape[1] // len(names)
  for expert in range(entry.shape[0]):
    for i, part in enumerate(names):
      rows = slice(i * size, (i + 1) * size)
      yield f'{found[1]}.{expert}.{part}.weight', _Expert(entry, expert, rows)


class _Expert:
  """A view of some rows of one expert in a stacked tensor."""

  def __init__(self, whole: Entry, expert: int, rows: slice):
    self.whole, self.expert, self.rows = whole, expert, rows
    self.shape, self.dtype = (rows.stop - rows.start, whole.shape[2]), whole.dtype

  def array(self) -> np.ndarray:
    return self.whole.array()[self.expert, self.rows]

  def chunks(self) -> Iterator[np.ndarray]:
    yield self.array()

  def release(self) -> None:
    self.whole.release()
