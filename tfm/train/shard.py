"""Where every array of a run lives: letters to mesh axes, mesh axes to devices."""

from collections.abc import Callable, Mapping, Sequence
import math
from typing import Any, TypeVar

from flax import linen as nn
import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec, SingleDeviceSharding
import numpy as np

from tfm.core import axes, errors
from tfm.train.mesh import MAY_STAY_WHOLE, NAMES, Mesh

T = TypeVar('T')
Rules = Mapping[str, tuple[str, ...]]


def make_mesh(mesh: Mesh, devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
  """Return the grid of `devices` (all of them, unless given) with the axes of `mesh`.

  Raises: UserError if the sizes are no factorisation of the number of devices.
  """
  devices = jax.devices() if devices is None else devices
  # Without Auto axes, jax asks every einsum of the model for the sharding of its result.
  sizes = tuple(mesh.sizes(len(devices)).values())
  return jax.make_mesh(sizes, NAMES, axis_types=(AxisType.Auto,) * len(NAMES), devices=devices)


def rows(mesh: jax.sharding.Mesh, rules: Rules) -> NamedSharding:
  """Return how the rows of a batch are split: over the mesh axes of letter B."""
  return NamedSharding(mesh, PartitionSpec(rules.get('B', ())))


def whole(mesh: jax.sharding.Mesh) -> NamedSharding:
  """On every device all of it."""
  return NamedSharding(mesh, PartitionSpec())


def shardings(
  mesh: jax.sharding.Mesh, rules: Rules, letters: Any, shapes: Any
) -> tuple[Any, dict[str, tuple[str, ...]], list[str]]:
  """(the sharding of every array, the rules in force, notes) of a tree with axis `letters` ('LDNH')
  and `shapes`.

  Where a mesh axis does not divide an axis that may stay whole, its letter leaves the rules and a
  note says so.

  Raises: UserError that lists every other axis that its mesh axes do not divide.
  """
  notes: dict[str, None] = {}
  kept = dict(rules)
  wrong: dict[tuple[str, int], str] = {}

  def place(letter: str, shape: jax.ShapeDtypeStruct) -> NamedSharding:
    if not letter:
      return whole(mesh)
    spec: list[Any] = []
    used: set[str] = set()
    for axis, size in zip(letter, shape.shape, strict=True):
      if absent := [n for n in rules.get(axis, ()) if n not in mesh.shape]:
        raise errors.UserError(
          f'mesh: has the axes {", ".join(map(str, mesh.shape))} and lacks {absent[0]}. Expected a '
          f'mesh of '
          'tfm.train.shard.make_mesh(Mesh(data=..., fsdp=..., tensor=...)).'
        )
      names = tuple(n for n in rules.get(axis, ()) if n not in used and mesh.shape[n] > 1)
      ways = math.prod(mesh.shape[n] for n in names)
      if size % ways:
        by = ' x '.join(f'{n}={mesh.shape[n]}' for n in names)
        said = f'{axis} ({axes.AXES.get(axis, "data")}) of {size} is not divided by {by}'
        if axis in MAY_STAY_WHOLE:
          notes[f'{said}: it stays whole on every device.'] = None
          kept.pop(axis, None)
        else:
          wrong[axis, size] = f'{said}; it would be by {_divisors(size, ways)}'
        names = ()
      used |= set(names)
      spec.append(names or None)
    while spec and spec[-1] is None:
      spec.pop()
    return NamedSharding(mesh, PartitionSpec(*spec))

  found = jax.tree.map(place, letters, shapes)
  if wrong:
    listed = '. '.join(wrong[k] for k in sorted(wrong))
    raise errors.UserError(
      f'mesh: {listed}. Expected sizes that divide, or mesh.rules that keep the axis whole.'
    )
  return found, kept, list(notes)


def placed(mesh: jax.sharding.Mesh | None, rules: Rules, letters: Any, shapes: Any) -> Any:
  """The sharding of every array of a tree: by the rules over `mesh`, or (None) all on one device of
  this process.

  Raises: UserError as `shardings`.
  """
  if mesh is None:
    one = SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda _: one, shapes)
  return shardings(mesh, rules, letters, shapes)[0]


def within(mesh: jax.sharding.Mesh, rules: Rules, fn: Callable[..., T]) -> Callable[..., T]:
  """`fn`, in whose trace `flax.linen.with_logical_constraint` knows mesh and rules.

  Without a word from the model on where its activations live, the compiler splits them as it splits
  the parameters and sends them around instead of the parameters."""

  def traced(*args: Any) -> T:
    with (
      jax.sharding.use_abstract_mesh(mesh.abstract_mesh),
      nn.logical_axis_rules([*rules.items()]),
    ):
      return fn(*args)

  return traced


def check_batch(mesh: jax.sharding.Mesh, rules: Rules, batch: int, accumulate: int) -> None:
  """Check that devices and micro-batches divide the rows of a batch.

  Raises: UserError if they do not.
  """
  names = rules.get('B', ())
  devices = math.prod(mesh.shape[n] for n in names)
  if batch % (ways := devices * accumulate):
    pieces = f' and {accumulate} micro-batches' if accumulate > 1 else ''
    near = sorted({max(1, batch // ways) * ways, -(-batch // ways) * ways})
    raise errors.UserError(
      f'data.batch: {batch} rows are not divided by the {devices} devices of mesh axes '
      f'{" x ".join(names)}{pieces}. '
      f'Expected a multiple of {ways}, such as {" or ".join(map(str, near))}.'
    )


def my_rows(sharding: NamedSharding, batch: int) -> slice:
  """The rows of a batch that the devices of this process hold."""
  index = sharding.addressable_devices_indices_map((batch,))
  bounds = [s[0].indices(batch) for s in index.values() if s is not None]
  return slice(min(b[0] for b in bounds), max(b[1] for b in bounds))


def put(
  features: Mapping[str, np.ndarray], where: Mapping[str, NamedSharding], batch: int, mine: slice
) -> dict[str, jax.Array]:
  """Return the features of a batch as global arrays.

  Args:
    features: The arrays of the rows `mine`, whole on every other axis.
    where: The sharding of each array.
    batch: Rows of the global batch.
    mine: The rows of this process, from `my_rows`.
  """
  if jax.process_count() == 1:
    return jax.device_put(dict(features), {name: where[name] for name in features})

  def array(name: str, value: np.ndarray) -> jax.Array:
    def piece(index: tuple[slice, ...] | None) -> np.ndarray:
      assert index is not None
      start, stop, _ = index[0].indices(batch)
      return value[(slice(start - mine.start, stop - mine.start), *index[1:])]

    return jax.make_array_from_callback((batch, *value.shape[1:]), where[name], piece)

  return {name: array(name, value) for name, value in features.items()}


def bytes_per_device(tree: Any) -> dict[jax.Device, int]:
  """How much of the arrays of `tree` each device of this process holds."""
  held: dict[jax.Device, int] = {}
  for array in jax.tree.leaves(tree):
    for shard in array.addressable_shards:
      held[shard.device] = held.get(shard.device, 0) + shard.data.nbytes
  return held


def _divisors(size: int, ways: int) -> str:
  fits = [n for n in range(1, size + 1) if size % n == 0]
  below, above = [n for n in fits if n < ways], [n for n in fits if n > ways]
  return ' or '.join(map(str, below[-1:] + above[:1]))
