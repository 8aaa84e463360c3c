"""The devices of a run as a grid, and the one table from an axis' letter to where it is split."""

from collections.abc import Iterator
import dataclasses
import math

from tfm.core import errors
from tfm.core.axes import AXES

#: Mesh axes: whole copies of the model; copies whose parameters are split; parts of each matrix multiplication.
NAMES = ('data', 'fsdp', 'tensor')

#: Which mesh axes split an axis of an array; a letter that is not here stays whole.
RULES: dict[str, tuple[str, ...]] = {
  'B': ('data', 'fsdp'),
  'D': ('fsdp',),
  'N': ('tensor',),
  'K': ('tensor',),
  'F': ('tensor',),
  'E': ('tensor',),
  'V': ('tensor',),
}

#: Axes that stay whole where their size does not divide, with a note: kv heads may be fewer than the tensor axis, and
#: vocabularies are what they are (50257).
MAY_STAY_WHOLE = frozenset('KV')


@dataclasses.dataclass(frozen=True)
class Mesh:
  """How many ways the batch (`data`), the parameters (`fsdp`) and the matrix products (`tensor`) are split.

  At most one size is -1: what the other two leave of the devices. `rules` are changes to the table of letters, such as
  'E:fsdp' (experts over the fsdp axis) or 'V:' (the vocabulary whole).
  """

  data: int = -1
  fsdp: int = 1
  tensor: int = 1
  rules: tuple[str, ...] = ()

  @property
  def shape(self) -> tuple[int, int, int]:
    return self.data, self.fsdp, self.tensor

  def sizes(self, devices: int) -> tuple[int, int, int]:
    """The sizes of the axes over so many devices.

    Raises: UserError if they are not a factorisation of it.
    """
    fixed = math.prod(n for n in self.shape if n > 0)
    shape = tuple(devices // fixed if n == -1 else n for n in self.shape)
    if math.prod(shape) != devices:
      rest = ' times a whole number of' if -1 in self.shape else ''
      wanted = f'a divisor of {devices}' if -1 in self.shape else f'sizes whose product is {devices}'
      raise errors.UserError(
        f'mesh: data={self.data}, fsdp={self.fsdp}, tensor={self.tensor} is for {fixed}{rest} devices, and there are '
        f'{devices}. Wanted {wanted}; data=-1 takes what the others leave.'
      )
    return shape  # type: ignore[return-value]

  def table(self) -> dict[str, tuple[str, ...]]:
    """`RULES` with this mesh's changes."""
    return RULES | {letter: tuple(filter(None, names.split('+'))) for letter, _, names in map(_parts, self.rules)}

  def check(self) -> Iterator[str]:
    for name, size in zip(NAMES, self.shape, strict=True):
      if size < 1 and size != -1:
        yield f'{name}: {size} is no number of devices. Wanted 1 or more, or -1 for what the other axes leave.'
    if sum(n == -1 for n in self.shape) > 1:
      yield f'data={self.data}, fsdp={self.fsdp}, tensor={self.tensor}: only one size may be -1.'
    for rule in self.rules:
      letter, colon, names = _parts(rule)
      if letter not in AXES or not colon:
        yield f'rules: {rule!r} is no rule. Wanted LETTER:AXES, as E:tensor or B:data+fsdp or V: (whole).'
      for name in filter(None, names.split('+')):
        if name not in NAMES:
          yield f'rules: {errors.unknown("mesh axis", name, NAMES)}'


def _parts(rule: str) -> tuple[str, str, str]:
  return rule.partition(':')
