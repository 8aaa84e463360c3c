"""Shardings of the arrays of a run: axis letters to mesh axes to devices."""

from collections.abc import Callable, Mapping, Sequence
import math
from typing import Any, TypeVar

from flax import linen as nn
import jax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec, SingleDeviceSharding
import numpy as np

from tfm.core import axes, errors
from tfm.core.platform import traced_for
from tfm.train.mesh import MAY_STAY_WHOLE, NAMES, Mesh

T = TypeVar('T')
Rules = Mapping[str, tuple[str, ...]]


def make_mesh(mesh: Mesh, devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
  """Return the device mesh with the axes of `mesh`.

  Args:
    mesh: The sizes of the axes.
    devices: Defaults to all devices.

  Raises:
    UserError: The product of the sizes is not the number of devices.
  """
  devices = jax.devices() if devices is None else devices
  # Without Auto axes, every einsum of the model would need a sharding for its result.
  sizes, types = mesh.sizes(len(devices)), (AxisType.Auto,) * len(NAMES)
  if mesh.dcn:
    return jax.sharding.Mesh(_over_slices(mesh, sizes, devices), NAMES, axis_types=types)
  return jax.make_mesh(tuple(sizes.values()), NAMES, axis_types=types, devices=devices)


def _over_slices(mesh: Mesh, sizes: dict[str, int], devices: Sequence[jax.Device]) -> np.ndarray:
  """Return the devices as an array of the mesh, with the axes of `mesh.dcn` across slices."""
  slow = mesh.slices()
  for name, factor in slow.items():
    if sizes[name] % factor:
      raise errors.UserError(
        f'mesh.dcn: {name}:{factor} does not divide {name}={sizes[name]}. Expected a divisor.'
      )
  count = lambda attribute: len({getattr(device, attribute, 0) for device in devices})
  # Only TPUs have slices. Elsewhere the slow network is the one between processes.
  of_processes = count('slice_index') == 1
  found, needed = (
    count('process_index' if of_processes else 'slice_index'),
    math.prod(slow.values()),
  )
  if found != needed:
    kind = 'processes' if of_processes else 'slices'
    raise errors.UserError(
      f'mesh.dcn: {" x ".join(mesh.dcn)} needs {needed} {kind}, but there are {found}. Expected '
      f'factors with the product {found}.'
    )
  fast = [size // slow.get(name, 1) for name, size in sizes.items()]
  between = [slow.get(name, 1) for name in sizes]
  return mesh_utils.create_hybrid_device_mesh(
    fast, between, devices, process_is_granule=of_processes
  )


def batch_axis(mesh: jax.sharding.Mesh, rules: Rules) -> NamedSharding:
  """Return the sharding of the batch axis: over the mesh axes of letter B."""
  return NamedSharding(mesh, PartitionSpec(rules.get('B', ())))


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
  """Return the sharding of arrays that every device holds whole."""
  return NamedSharding(mesh, PartitionSpec())


def shardings(
  mesh: jax.sharding.Mesh, rules: Rules, letters: Any, shapes: Any
) -> tuple[Any, dict[str, tuple[str, ...]], list[str]]:
  """Return the sharding of every array of a tree.

  If a mesh axis does not divide an axis of `MAY_STAY_WHOLE`, that axis is replicated. Its letter is
  removed from the rules, and a note says so.

  Args:
    mesh: The device mesh.
    rules: The mesh axes of each axis letter.
    letters: The axis letters of each array ('LDNH'); '' replicates an array. A lower-case letter
      names blocks of an axis, which are replicated if their number is not divisible.
    shapes: `jax.ShapeDtypeStruct`s, a tree of the same structure.

  Returns:
    (tree of shardings, rules in effect, notes).

  Raises:
    UserError: Mesh axes do not divide other axes. The message lists them.
  """
  notes: dict[str, None] = {}
  effective = dict(rules)
  wrong: dict[tuple[str, int], str] = {}

  def split(axis: str, size: int, used: set[str]) -> tuple[str, ...]:
    """Return the mesh axes that shard an axis of `size`, without those in `used`."""
    names = _mesh_axes(mesh, rules, axis.upper(), used)
    ways = math.prod(mesh.shape[n] for n in names)
    if size % ways == 0:
      return names
    if axis.islower():
      return ()
    by = ' x '.join(f'{n}={mesh.shape[n]}' for n in names)
    problem = f'{axis} ({axes.AXES.get(axis, "data")}) of {size} is not divisible by {by}'
    if axis in MAY_STAY_WHOLE:
      notes[f'{problem}: it is replicated on every device.'] = None
      effective.pop(axis, None)
    else:
      wrong[axis, size] = f'{problem}; it is divisible by {_divisors(size, ways)}'
    return ()

  def place(letter: str, shape: jax.ShapeDtypeStruct) -> NamedSharding:
    if not letter:
      return replicated(mesh)
    spec: list[Any] = []
    used: set[str] = set()
    for axis, size in zip(letter, shape.shape, strict=True):
      names = split(axis, size, used)
      used |= set(names)
      spec.append(names or None)
    while spec and spec[-1] is None:
      spec.pop()
    return NamedSharding(mesh, PartitionSpec(*spec))

  placements = jax.tree.map(place, letters, shapes)
  if wrong:
    listed = '. '.join(wrong[k] for k in sorted(wrong))
    raise errors.UserError(
      f'mesh: {listed}. Expected mesh sizes that divide, or mesh.rules that replicate the axis.'
    )
  return placements, effective, list(notes)


def _mesh_axes(mesh: jax.sharding.Mesh, rules: Rules, axis: str, used: set[str]) -> tuple[str, ...]:
  """Return the mesh axes of a letter that are larger than 1 and not in `used`."""
  names = rules.get(axis, ())
  if absent := [n for n in names if n not in mesh.shape]:
    raise errors.UserError(
      f'mesh: has the axes {", ".join(map(str, mesh.shape))} and lacks {absent[0]}. Expected a '
      f'mesh of tfm.train.shard.make_mesh(Mesh(data=..., fsdp=..., tensor=...)).'
    )
  return tuple(n for n in names if n not in used and mesh.shape[n] > 1)


def placed(mesh: jax.sharding.Mesh | None, rules: Rules, letters: Any, shapes: Any) -> Any:
  """Return the sharding of every array of a tree.

  Args:
    mesh: The device mesh. None places all arrays on one device of this process.
    rules: The mesh axes of each axis letter.
    letters: The axis letters of each array, as for `shardings`.
    shapes: `jax.ShapeDtypeStruct`s, a tree of the same structure.

  Returns:
    A tree of shardings.

  Raises:
    UserError: The mesh does not divide an axis.
  """
  if mesh is None:
    single = SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda _: single, shapes)
  return shardings(mesh, rules, letters, shapes)[0]


def sharded_shapes(shapes: Any, shardings: Any) -> Any:
  """Return a tree of `jax.ShapeDtypeStruct`s with their shardings."""

  def one(array: jax.ShapeDtypeStruct, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding)

  return jax.tree.map(one, shapes, shardings)


def with_rules(mesh: jax.sharding.Mesh, rules: Rules, fn: Callable[..., T]) -> Callable[..., T]:
  """Trace a function with mesh and rules for `flax.linen.with_logical_constraint`.

  Without these constraints on activations, the compiler shards activations like the parameters, and
  sends activations instead of parameters between devices.

  Args:
    mesh: The device mesh.
    rules: The mesh axes of each axis letter.
    fn: The function.

  Returns:
    A function with the same arguments and results.
  """

  def traced(*args: Any) -> T:
    with (
      jax.sharding.use_abstract_mesh(mesh.abstract_mesh),
      traced_for(mesh.devices.flat[0].platform),
      nn.logical_axis_rules([*rules.items()]),
    ):
      return fn(*args)

  return traced


def check_batch(mesh: jax.sharding.Mesh, rules: Rules, batch: int, accumulate: int) -> None:
  """Check that devices and micro-batches divide the batch.

  Args:
    mesh: The device mesh.
    rules: The mesh axes of each axis letter.
    batch: The size of the global batch.
    accumulate: The number of micro-batches.

  Raises:
    UserError: They do not divide it.
  """
  names = rules.get('B', ())
  devices = math.prod(mesh.shape[n] for n in names)
  if batch % (ways := devices * accumulate):
    pieces = f' and {accumulate} micro-batches' if accumulate > 1 else ''
    near = sorted({max(1, batch // ways) * ways, -(-batch // ways) * ways})
    raise errors.UserError(
      f'data.batch: {batch} is not divisible by the {devices} devices of mesh axes '
      f'{" x ".join(names)}{pieces}. '
      f'Expected a multiple of {ways}, such as {" or ".join(map(str, near))}.'
    )


def local_slice(sharding: NamedSharding, batch: int) -> slice:
  """Return the slice of a batch that the devices of this process hold."""
  index = sharding.addressable_devices_indices_map((batch,))
  bounds = [s[0].indices(batch) for s in index.values() if s is not None]
  starts, stops, _ = zip(*bounds, strict=True)
  return slice(min(starts), max(stops))


def put(
  features: Mapping[str, np.ndarray],
  shardings: Mapping[str, NamedSharding],
  batch: int,
  local: slice,
) -> dict[str, jax.Array]:
  """Return the features of a batch as global arrays.

  Args:
    features: The arrays of the examples `local`, whole on every other axis.
    shardings: The sharding of each array.
    batch: The size of the global batch.
    local: The examples of this process, from `local_slice`.

  Returns:
    The arrays by name, sharded over all processes.
  """
  if jax.process_count() == 1:
    return jax.device_put(dict(features), {name: shardings[name] for name in features})

  def array(name: str, value: np.ndarray) -> jax.Array:
    # Each of several tasks has a fixed share of the rows.
    rows = batch * len(value) // (local.stop - local.start)
    first = local.start * rows // batch

    def piece(index: tuple[slice, ...] | None) -> np.ndarray:
      assert index is not None
      start, stop, _ = index[0].indices(rows)
      return value[(slice(start - first, stop - first), *index[1:])]

    return jax.make_array_from_callback((rows, *value.shape[1:]), shardings[name], piece)

  return {name: array(name, value) for name, value in features.items()}


def bytes_per_device(tree: Any) -> dict[jax.Device, int]:
  """Return the bytes of a tree of arrays on each device of this process."""
  sizes: dict[jax.Device, int] = {}
  for array in jax.tree.leaves(tree):
    for shard in array.addressable_shards:
      sizes[shard.device] = sizes.get(shard.device, 0) + shard.data.nbytes
  return sizes


def _divisors(size: int, ways: int) -> str:
  divisors = [n for n in range(1, size + 1) if size % n == 0]
  below = [n for n in divisors if n < ways]
  above = [n for n in divisors if n > ways]
  return ' or '.join(map(str, below[-1:] + above[:1]))
