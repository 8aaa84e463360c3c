"""The device mesh of a run and the sharding rules of axis letters."""

from collections.abc import Iterator
import dataclasses
import math

from tfm.core import errors
from tfm.core.axes import AXES

#: Mesh axes: data parallelism (`data`), data parallelism with sharded parameters (`fsdp`), tensor,
#: sequence and expert parallelism, and pipeline stages.
NAMES = ('data', 'fsdp', 'tensor', 'sequence', 'expert', 'stage')

#: The mesh axes that shard each axis letter. Other letters are replicated.
RULES: dict[str, tuple[str, ...]] = {
  'B': ('data', 'fsdp'),
  'D': ('fsdp',),
  'N': ('tensor',),
  'K': ('tensor',),
  'F': ('tensor',),
  'E': ('tensor',),
  'V': ('tensor',),
}

#: Axes that are replicated, with a note, if their size is not divisible. There may be fewer kv
#: heads than devices of the tensor axis, and vocabularies have odd sizes (50257).
MAY_STAY_WHOLE = frozenset('KV')


@dataclasses.dataclass(frozen=True)
class Mesh:
  """The size of each mesh axis, and changes to the sharding rules.

  At most one size is -1. It takes the devices that the other axes leave.

  Attributes:
    data: Splits the batch.
    fsdp: Splits the batch and the parameters.
    tensor: Splits matrix products.
    sequence: Splits sequences. `attend=auto` then uses `ulysses` if the devices divide the heads,
      else `ring`.
    expert: Splits the batch and the experts.
    stage: Splits layers, as a pipeline (`tfm.model.loops.pipeline`).
    microbatches: The number of micro-batches of the pipeline. None is 4 for each stage, or the most
      that the batch allows.
    rounds: The number of groups of layers of a stage. More divide the idle time of the pipeline,
      (stage - 1) / (rounds x microbatches + stage - 1), but redistribute parameters.
    dcn: AXIS:SIZE strings, the factor of an axis that crosses the slow network between slices or
      hosts. ('data:2',) with data=8 places 4 parts on each of 2 slices. Empty for a single slice.
    rules: LETTER:AXES strings, each of which replaces the default rule of its letter. 'E:fsdp'
      splits experts over the fsdp axis, and 'V:' replicates the vocabulary.
  """

  data: int = -1
  fsdp: int = 1
  tensor: int = 1
  sequence: int = 1
  expert: int = 1
  stage: int = 1
  microbatches: int | None = None
  rounds: int = 1
  dcn: tuple[str, ...] = ()
  rules: tuple[str, ...] = ()

  @property
  def shape(self) -> dict[str, int]:
    """The size of each axis, -1 for the axis that takes the remaining devices."""
    return {name: getattr(self, name) for name in NAMES}

  def sizes(self, devices: int) -> dict[str, int]:
    """Return the size of each axis over `devices` devices.

    Raises:
      UserError: The product of the sizes is not the number of devices.
    """
    fixed = math.prod(n for n in self.shape.values() if n > 0)
    free = {name: devices // fixed for name, n in self.shape.items() if n == -1}
    sizes = self.shape | free
    if math.prod(sizes.values()) != devices:
      given = ' x '.join(f'{name}={n}' for name, n in self.shape.items() if n > 1)
      needed = f'{fixed} devices'
      expected = f'sizes with the product {devices}. data=-1 takes the remaining devices'
      if -1 in self.shape.values():
        needed, expected = f'a multiple of {fixed} devices', f'a divisor of {devices}'
      raise errors.UserError(
        f'mesh: {given or "all sizes 1"} needs {needed}, but there are {devices}. '
        f'Expected {expected}.'
      )
    return sizes

  def slices(self) -> dict[str, int]:
    """Return the factor of each axis that crosses slices, for the axes in `dcn`."""
    return {name: int(size) for name, _, size in map(_parts, self.dcn)}

  def table(self) -> dict[str, tuple[str, ...]]:
    """Return the mesh axes of each letter: `RULES` with the changes of this mesh."""
    table = dict(RULES)
    if self.expert != 1:
      # With a separate expert axis, the tensor axis splits the products inside each expert.
      table |= {'B': (*RULES['B'], 'expert'), 'E': ('expert',)}
    if self.sequence != 1:
      table['T'] = ('sequence',)
    if self.stage != 1:
      table['L'] = ('stage',)
    for letter, _, names in map(_parts, self.rules):
      table[letter] = tuple(filter(None, names.split('+')))
    return table

  def check(self) -> Iterator[str]:
    for name, size in self.shape.items():
      if size < 1 and size != -1:
        yield f'{name}: is {size}. Expected 1 or more, or -1 for the remaining devices.'
    if len(free := [name for name, size in self.shape.items() if size == -1]) > 1:
      yield f'{", ".join(free)}: are all -1. Expected at most one -1.'
    if self.microbatches is not None and self.microbatches < 1:
      yield f'microbatches: is {self.microbatches}. Expected 1 or more, or none.'
    if self.rounds < 1:
      yield f'rounds: is {self.rounds}. Expected 1 or more.'
    yield from self._unused()
    yield from self._wrong_slices()
    for rule in self.rules:
      letter, colon, names = _parts(rule)
      if letter not in AXES or not colon:
        yield (
          f'rules: {rule!r} is not a rule. Expected LETTER:AXES, such as E:tensor, B:data+fsdp or '
          'V: (replicated).'
        )
      for name in filter(None, names.split('+')):
        if name not in NAMES:
          yield f'rules: {errors.unknown("mesh axis", name, NAMES)}'

  def _wrong_slices(self) -> Iterator[str]:
    """Yield a message for each wrong entry of `dcn`."""
    for i, entry in enumerate(self.dcn):
      name, _, size = _parts(entry)
      if name not in NAMES or not size.isdecimal() or int(size) < 2:
        yield f'dcn: {entry!r} is not a factor of an axis. Expected AXIS:SIZE, such as data:2.'
      elif name in {_parts(other)[0] for other in self.dcn[:i]}:
        yield f'dcn: {name} is given twice. Expected one factor.'
      elif (whole := self.shape[name]) > 0 and whole % int(size):
        yield (
          f'dcn: {entry} does not divide {name}={whole}. Expected a divisor; the size of an axis '
          'includes its slices.'
        )

  def _unused(self) -> Iterator[str]:
    """Yield a message for each mesh axis that shards nothing."""
    used = {name for names in self.table().values() for name in names}
    for name, size in self.shape.items():
      # data=-1 is the default, and may resolve to 1.
      if size != 1 and name not in used and (name, size) != ('data', -1):
        yield (
          f'{name}: is {size}, but no rule shards an axis over {name}. Expected 1, or a rule in '
          'mesh.rules.'
        )


def _parts(rule: str) -> tuple[str, str, str]:
  return rule.partition(':')
