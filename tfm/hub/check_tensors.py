"""Match the tensors of a checkpoint to the tensor map of its family."""

from collections.abc import Mapping, Sequence
import dataclasses
import re

import jax.numpy as jnp
import numpy as np

from tfm.core import errors
from tfm.hub.names import Names, is_buffer, key, unwrapped
from tfm.hub.tensors import Tensors
from tfm.zoo.weights import Published, Tensor, tensor_map

#: The maximum number of tensors in each list of an error.
_MAX_LISTED = 12
#: Rows that are compared at a time.
_ROWS = 1024
_TABLE = 'embed/table'
_FLOATS = ('float16', 'bfloat16', 'float32', 'float64')


def check_tensors(where: str, published: Published, tensors: Tensors) -> list[Tensor]:
  """Return the tensor map of a published model with the names in its checkpoint.

  A tensor may have an alternative spelling (see `tfm.hub.names`). A tied token table may have the
  name of the language-model head.

  Args:
    where: The folder, for errors.
    published: The model that `config.json` describes.
    tensors: The tensors of the checkpoint.

  Returns:
    The tensors of the parameters, under their names in the checkpoint.

  Raises:
    UserError: Lists all tensors that are missing, unknown, of another shape or not floating-point,
      or names a copy that differs from its original.
  """
  found = _Match(where, published, tensors)
  found.check_tensors()
  found.check_copies()
  return found.expected


class _Match:
  """The tensor map of a model, matched to the tensors of a checkpoint."""

  def __init__(self, where: str, published: Published, tensors: Tensors):
    self.where, self.published, self.tensors = where, published, tensors
    family = self.family = published.family
    self.names = Names(family, tensors)
    mapped = tensor_map(family, published.spec, published.ending)
    keys = {key(family, t.name) for t in mapped}
    tied = [name for name in family.tied if key(family, name) not in keys]
    #: The names in the checkpoint of a head that is tied to the token table.
    self.tied = list(dict.fromkeys(n for name in tied for n in self.names.spellings(name)))
    self.expected = [dataclasses.replace(t, name=self._name(t)) for t in mapped]
    self.used = {t.name for t in self.expected}
    self.tied = [name for name in self.tied if name not in self.used]
    self.twins: dict[str, str] = {}
    for twin, path in family.twins(published.spec).items():
      names = [n for n in self.names.spellings(twin) if n not in self.used]
      self.twins |= dict.fromkeys(names, path)
    self.fixed: dict[str, np.ndarray] = {}
    for name, array in family.fixed_of(published.spec, published.ending).items():
      self.fixed |= dict.fromkeys(self.names.spellings(name), array)
    #: Alternative spellings of a tensor -> the spelling that is read.
    self.copies: dict[str, str] = {}
    taken = {*self.used, *self.tied, *self.twins}
    for t in self.expected:
      names = [n for n in self.names.spellings(t.name) if n not in taken]
      self.copies |= dict.fromkeys(names, t.name)

  def _name(self, tensor: Tensor) -> str:
    """Return the name of a mapped tensor in the checkpoint, unchanged if it is missing."""
    copies = self.tied if tensor.slots[0].path == _TABLE else []
    return next(iter([*self.names.spellings(tensor.name), *copies]), tensor.name)

  def check_tensors(self) -> None:
    """Raise a UserError that lists all tensors that do not match the tensor map."""
    missing = [t for t in self.expected if t.name not in self.tensors]
    extra = sorted(n for n in self.tensors if not self._known(n))
    shape = self.tensors.shape
    present = [t for t in self.expected if t.name in self.tensors]
    shapes = []
    for t in present:
      if shape(t.name) != t.shape:
        shapes.append(f'{t.name} is {list(shape(t.name))}, expected {list(t.shape)}')
    missing_lines = [f'{t.name} {list(t.shape)}' for t in sorted(missing, key=lambda t: t.name)]
    wrong = [
      *_listed('missing', missing_lines),
      *_listed('unknown', [f'{name} {list(shape(name))}' for name in extra]),
      *_listed('of another shape', shapes),
      *self._more_layers(extra),
    ]
    if wrong:
      raise errors.UserError(
        f'{self.where}: the tensors do not match config.json '
        f'({self.published.architecture}).{"".join(wrong)}'
      )
    dtypes = {t.name: jnp.dtype(self.tensors.dtype(t.name)).name for t in present}
    if quantized := [f'{name} is {d}' for name, d in dtypes.items() if d not in _FLOATS]:
      raise errors.UserError(
        f'{self.where}: quantized weights, but config.json has no quantization_config. Expected '
        f'{", ".join(_FLOATS)}.{"".join(_listed("of another dtype", quantized))}'
      )

  def _known(self, name: str) -> bool:
    """Return whether a tensor of the checkpoint is read, compared or safely ignored."""
    read = (self.used, self.copies, self.tied, self.twins, self.fixed)
    if any(name in names for names in read) or is_buffer(name, self.tensors.shape(name)):
      return True
    spellings = {name, unwrapped(self.family, name), key(self.family, name)}
    ignored = self.family.ignored_of(self.published.spec)
    return any(p.search(spelling) for p in ignored for spelling in spellings)

  def _more_layers(self, extra: Sequence[str]) -> list[str]:
    """Return a hint if unknown tensors belong to additional layers or experts."""
    if not extra:
      return []
    star = lambda name: re.sub(r'\b\d+\b', '*', key(self.family, name))
    kinds = {star(t.name) for t in self.expected}
    if not any('*' in star(name) and star(name) in kinds for name in extra):
      return []
    return ['\n  The files have more layers or experts than config.json. Expected the same number.']

  def check_copies(self) -> None:
    """Raise a UserError for a copy of a tensor that differs from the original."""
    by_path = {t.slots[0].path: t.name for t in reversed(self.expected)}
    originals = {name: by_path.get(_TABLE) for name in self.tied}
    originals |= {name: by_path.get(path) for name, path in self.twins.items()}
    originals |= self.copies
    for name, original in sorted(originals.items()):
      if original is not None and _equal(self.tensors, name, original):
        continue
      problem = f'{self.where}: {name} differs from {original}'
      if name in self.tied:
        raise errors.UserError(
          f'{problem}, but config.json ties them. Expected tie_word_embeddings=false for separate '
          'weights.'
        )
      raise errors.UserError(f'{problem}. Expected equal tensors, or only {original}.')
    _check_fixed(self.where, self.fixed, self.tensors)


def _equal(tensors: Tensors, a: str, b: str) -> bool:
  """Return whether two tensors are equal, without loading them fully."""
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
    stored = tensors[name].astype(np.float32)
    if stored.shape != expected.shape or not np.allclose(stored, expected, atol=1e-2):
      raise errors.UserError(
        f'{where}: {name} {list(stored.shape)} differs from the fixed table '
        f'{list(expected.shape)} that config.json implies. Expected that table, or none.'
      )


def _listed(what: str, lines: Sequence[str]) -> list[str]:
  if not lines:
    return []
  more = [f'... and {len(lines) - _MAX_LISTED} more'] if len(lines) > _MAX_LISTED else []
  return ['\n  ' + '\n    '.join([f'{what} ({len(lines)}):', *lines[:_MAX_LISTED], *more])]
