"""Match the tensors of a checkpoint to the tensor_map of its family; list all that do not fit in
one error.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import re

import jax.numpy as jnp
import numpy as np

from tfm.core import errors
from tfm.hub.names import Names, is_buffer, key, unwrapped
from tfm.hub.tensors import Tensors
from tfm.zoo.weights import Published, Tensor, tensor_map

_MOST = 12
_ROWS = 1024
_TABLE = 'embed/table'
_FLOATS = ('float16', 'bfloat16', 'float32', 'float64')


def check_tensors(where: str, published: Published, tensors: Tensors) -> list[Tensor]:
  """Return the tensors that hold the parameters of a published model, under their names in the
  checkpoint.

  A tensor may have another spelling of its name (`tfm.hub.names`); a tied table may have the name
  of its second use.

  Args:
    where: the folder, for errors.
    published: the model that `config.json` describes.
    tensors: the tensors of the checkpoint.

  Raises:
    UserError: lists every tensor that is missing, unknown, of another shape or of a dtype that
      holds no weights; or names one that has to equal another and does not.
  """
  found = _Match(where, published, tensors)
  found.check_tensors()
  found.check_copies()
  return found.wanted


class _Match:
  """The tensors of a tensor_map, and the tensors of a checkpoint that hold them."""

  def __init__(self, where: str, published: Published, tensors: Tensors):
    self.where, self.published, self.tensors = where, published, tensors
    family = self.family = published.family
    self.names = Names(family, tensors)
    planned = tensor_map(family, published.spec, published.ending)
    own = {key(family, t.name) for t in planned}
    tied = [name for name in family.tied if key(family, name) not in own]
    #: The names of a tied table's second use, in the checkpoint.
    self.tied = list(dict.fromkeys(n for name in tied for n in self.names.spellings(name)))
    self.wanted = [dataclasses.replace(t, name=self._name(t)) for t in planned]
    self.used = {t.name for t in self.wanted}
    self.tied = [name for name in self.tied if name not in self.used]
    twins = family.twins(published.spec)
    self.twins = {
      n: path
      for twin, path in twins.items()
      for n in self.names.spellings(twin)
      if n not in self.used
    }
    fixed = family.fixed_of(published.spec, published.ending)
    self.fixed = {name: array for own, array in fixed.items() for name in self.names.spellings(own)}
    #: Further spellings of a tensor, and the name under which it is read.
    taken = {*self.used, *self.tied, *self.twins}
    self.copies = {
      n: t.name for t in self.wanted for n in self.names.spellings(t.name) if n not in taken
    }

  def _name(self, tensor: Tensor) -> str:
    """Return the name of a planned tensor in the checkpoint, its own if it is missing."""
    copies = self.tied if tensor.slots[0].path == _TABLE else []
    return next(iter([*self.names.spellings(tensor.name), *copies]), tensor.name)

  def check_tensors(self) -> None:
    """Raise a UserError that lists all tensors that do not fit the tensor_map."""
    missing = [t for t in self.wanted if t.name not in self.tensors]
    extra = sorted(n for n in self.tensors if not self._known(n))
    shape = self.tensors.shape
    held = [t for t in self.wanted if t.name in self.tensors]
    shapes = [
      f'{t.name} is {list(shape(t.name))}, expected {list(t.shape)}'
      for t in held
      if shape(t.name) != t.shape
    ]
    wrong = [
      *_listed(
        'missing', [f'{t.name} {list(t.shape)}' for t in sorted(missing, key=lambda t: t.name)]
      ),
      *_listed('not known', [f'{name} {list(shape(name))}' for name in extra]),
      *_listed('of another shape', shapes),
      *self._more_layers(extra),
    ]
    if wrong:
      raise errors.UserError(
        f'{self.where}: the tensors do not fit its config.json, a '
        f'{self.published.architecture}.{"".join(wrong)}'
      )
    if whole := [
      f'{t.name} is {d}'
      for t in held
      if (d := jnp.dtype(self.tensors.dtype(t.name)).name) not in _FLOATS
    ]:
      raise errors.UserError(
        f'{self.where}: weights are stored as numbers that need a scale, and config.json has no '
        f'quantization_config '
        f'for them. Expected {", ".join(_FLOATS)}.{"".join(_listed("of another dtype", whole))}'
      )

  def _known(self, name: str) -> bool:
    """Return whether a tensor of the checkpoint is read, compared, or holds nothing that the model
    computes with.
    """
    if (
      name in self.used
      or name in self.copies
      or name in self.tied
      or name in self.twins
      or name in self.fixed
    ):
      return True
    if is_buffer(name, self.tensors.shape(name)):
      return True
    ways = {name, unwrapped(self.family, name), key(self.family, name)}
    return any(p.search(way) for p in self.family.ignored_of(self.published.spec) for way in ways)

  def _more_layers(self, extra: Sequence[str]) -> list[str]:
    """Return a sentence if unknown tensors belong to further layers or experts."""
    if not extra:
      return []
    star = lambda name: re.sub(r'\b\d+\b', '*', key(self.family, name))
    kinds = {star(t.name) for t in self.wanted}
    if not any('*' in star(name) and star(name) in kinds for name in extra):
      return []
    return [
      '\n  The files hold more layers or experts than config.json has. Expected the same number.'
    ]

  def check_copies(self) -> None:
    """Raise a UserError for a tensor that has to equal another and does not."""
    ties = 'the token table {}, and config.json ties them. Expected tie_word_embeddings=false for separate weights.'
    again = '{}, which it has to equal. Expected the same numbers, or a file without it.'
    own = {t.slots[0].path: t.name for t in reversed(self.wanted)}
    pairs = {
      **{name: (own.get(_TABLE), ties) for name in self.tied},
      **{name: (own.get(path), again) for name, path in self.twins.items()},
      **{name: (other, again) for name, other in self.copies.items()},
    }
    for name, (other, text) in sorted(pairs.items()):
      if other is None or not _equal(self.tensors, name, other):
        raise errors.UserError(f'{self.where}: {name} is not {text.format(other)}')
    _check_fixed(self.where, self.fixed, self.tensors)


def _equal(tensors: Tensors, a: str, b: str) -> bool:
  """Return whether two tensors are equal, compared a few rows at a time."""
  if tensors.shape(a) != tensors.shape(b):
    return False
  one, other = tensors[a], tensors[b]
  if not one.ndim:
    return bool(one == other)
  return all(
    np.array_equal(one[i : i + _ROWS], other[i : i + _ROWS]) for i in range(0, len(one), _ROWS)
  )


def _check_fixed(where: str, fixed: Mapping[str, np.ndarray], tensors: Tensors) -> None:
  for name, expected in sorted(fixed.items()):
    held = tensors[name]
    if held.shape != expected.shape or not np.allclose(
      held.astype(np.float32), expected, atol=1e-2
    ):
      raise errors.UserError(
        f'{where}: {name} {list(held.shape)} is not the fixed table {list(expected.shape)} of '
        f'config.json. '
        'Expected that table, or none.'
      )


def _listed(what: str, lines: Sequence[str]) -> list[str]:
  if not lines:
    return []
  more = [f'... and {len(lines) - _MOST} more'] if len(lines) > _MOST else []
  return ['\n  ' + '\n    '.join([f'{what} ({len(lines)}):', *lines[:_MOST], *more])]
