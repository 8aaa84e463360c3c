"""The devices of a run as a grid, and the one table from an axis' letter to where it is split."""

from collections.abc import Iterator
import dataclasses
import math

from tfm.core import errors
from tfm.core.axes import AXES

#: Mesh axes: copies of the model (`data`), copies whose parameters are split (`fsdp`), parts of
#: each matrix multiplication (`tensor`), of the positions of a sequence, of the experts, and stages
#: of layers.
NAMES = ('data', 'fsdp', 'tensor', 'sequence', 'expert', 'stage')

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

#: Axes that stay whole where their size does not divide, with a note: kv heads may be fewer than
#: the tensor axis, and vocabularies have odd sizes (50257).
MAY_STAY_WHOLE = frozenset('KV')


@dataclasses.dataclass(frozen=True)
class Mesh:
  """The size of each mesh axis, and changes to the sharding rules.

  `data` splits the batch, `fsdp` the batch and the parameters, `tensor` the matrix products,
  `expert` the batch and the experts. No default rule uses `sequence` and `stage`: give one in
  `rules`, such as 'T:sequence'.

  At most one size is -1, which takes the devices that the other axes leave. A rule such as 'E:fsdp'
  (experts over the fsdp axis) or 'V:' (the vocabulary whole) replaces the default rule of its
  letter."""

  data: int = -1
  fsdp: int = 1
  tensor: int = 1
  sequence: int = 1
  expert: int = 1
  stage: int = 1
  rules: tuple[str, ...] = ()

  @property
  def shape(self) -> dict[str, int]:
    """The size of each axis, -1 for the axis that takes the remaining devices."""
    return {name: getattr(self, name) for name in NAMES}

  def sizes(self, devices: int) -> dict[str, int]:
    """Return the size of each axis over `devices` devices.

    Raises: UserError if their product is not the number of devices.
    """
    fixed = math.prod(n for n in self.shape.values() if n > 0)
    found = {name: devices // fixed if n == -1 else n for name, n in self.shape.items()}
    if math.prod(found.values()) != devices:
      free = next((name for name, n in self.shape.items() if n == -1), None)
      said = ' x '.join(f'{name}={n}' for name, n in self.shape.items() if n > 1) or 'all sizes 1'
      needed, wanted = (
        f'{fixed} devices',
        f'sizes whose product is {devices}; data=-1 takes the remaining devices',
      )
      if free:
        needed, wanted = f'a multiple of {fixed} devices', f'a divisor of {devices}'
      raise errors.UserError(
        f'mesh: {said} needs {needed}, and there are {devices}. Expected {wanted}.'
      )
    return found

  def table(self) -> dict[str, tuple[str, ...]]:
    """Return the mesh axes of each letter: `RULES` with the changes of this mesh."""
    # With a separate expert axis, the tensor axis splits the products inside each expert.
    expert = {'B': (*RULES['B'], 'expert'), 'E': ('expert',)} if self.expert != 1 else {}
    own = {
      letter: tuple(filter(None, names.split('+'))) for letter, _, names in map(_parts, self.rules)
    }
    return RULES | expert | own

  def check(self) -> Iterator[str]:
    for name, size in self.shape.items():
      if size < 1 and size != -1:
        yield f'{name}: is {size}. Expected 1 or more, or -1 for the devices that the other axes leave.'
    if len(free := [f'{name}=-1' for name, size in self.shape.items() if size == -1]) > 1:
      yield f'{", ".join(free)}: only one size may be -1.'
    yield from self._unused()
    for rule in self.rules:
      letter, colon, names = _parts(rule)
      if letter not in AXES or not colon:
        yield f'rules: {rule!r} is not a rule. Expected LETTER:AXES, such as E:tensor, B:data+fsdp or V: (whole).'
      for name in filter(None, names.split('+')):
        if name not in NAMES:
          yield f'rules: {errors.unknown("mesh axis", name, NAMES)}'

  def _unused(self) -> Iterator[str]:
    """Yield a sentence for each axis that splits nothing."""
    used = {name for names in self.table().values() for name in names}
    for name, size in self.shape.items():
      # data=-1 is the default, and may come out as 1.
      if size != 1 and name not in used and (name, size) != ('data', -1):
        yield f'{name}: is {size}, but no rule shards an axis over {name}. Expected 1, or a rule in mesh.rules.'


def _parts(rule: str) -> tuple[str, str, str]:
  return rule.partition(':')
