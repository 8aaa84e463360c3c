"""An analytic model of memory and time, to rank settings without compiling each."""

from collections.abc import Iterator
import dataclasses
import functools
import itertools
import math
from typing import Any

import jax

from tfm.core import errors
from tfm.core.platform import traced_for
from tfm.model import transformer
from tfm.model.remat import HOST, offloads
from tfm.plan.programs import bytes_per_chip
from tfm.plan.topology import Topology
from tfm.train import shard
from tfm.train import step as step_lib
from tfm.train.build import constant_shapes
from tfm.train.experiment import Experiment
from tfm.train.forward import Forward
from tfm.train.mesh import NAMES, Mesh
from tfm.train.speed import flops_per_step

#: (mesh axis, size) pairs.
Sizes = tuple[tuple[str, int], ...]

#: The most micro-batches of a step, and chips of a tensor-parallel group.
_MICRO, _TENSOR = 16, 16


@dataclasses.dataclass(frozen=True)
class Settings:
  """Settings that change the cost of a step, and its result only by rounding.

  Attributes:
    mesh: The size of each mesh axis, as (name, size) pairs.
    remat: The rematerialisation policy.
    accumulate: The number of micro-batches.
  """

  mesh: Sizes
  remat: str
  accumulate: int

  def applied(self, x: Experiment) -> Experiment:
    """Return the experiment with these settings."""
    return dataclasses.replace(
      x,
      mesh=sized(x.mesh, self.mesh),
      remat=self.remat,
      optim=dataclasses.replace(x.optim, accumulate=self.accumulate),
    )

  def paths(self) -> dict[str, Any]:
    """Return the values by their paths in the config, without mesh axes of size 1."""
    sizes = {f'mesh.{name}': n for name, n in self.mesh if n > 1 or name == 'data'}
    return {**sizes, 'remat': self.remat, 'optim.accumulate': self.accumulate}

  def flags(self) -> str:
    """Return the settings as flags of a command."""
    return ' '.join(f'--config.{path}={value}' for path, value in self.paths().items())

  def text(self) -> str:
    """Return the settings in few words, without values that are the default."""
    found = self.paths()
    shown = {path: value for path, value in found.items() if value != 1}
    words = [f'{path.rpartition(".")[2]}={value}' for path, value in shown.items()]
    return ' '.join(words)


class Estimator:
  """Predicts the memory and the least time of training steps.

  Memory is the exact state, gradients, the arrays that the backward pass reads, and the working set
  of a layer. Time is the larger of computation (with recomputation) and communication.

  Args:
    x: The experiment.
    topology: The chips.
  """

  def __init__(self, x: Experiment, topology: Topology):
    self.x, self.topology = x, topology
    self._devices = topology.devices()
    self._tx = x.optim.make(x.steps, transformer.param_letters(x.model))
    self._shapes, self._letters = step_lib.shapes(x, self._tx), step_lib.letters(x, self._tx)
    self._flops = flops_per_step(x) or 0.0

  def ranked(self) -> list[Settings]:
    """Return the settings that divide the batch and the model, the best prediction first."""
    found = []
    for mesh in self._meshes():
      for accumulate in (1, 2, 4, 8, _MICRO):
        if self.x.data.batch % (self._batch_ways(mesh) * accumulate):
          continue
        for remat in self._remats():
          found.append(Settings(mesh, remat, accumulate))
    return sorted(found, key=self._order)

  def _order(self, settings: Settings) -> tuple[bool, float, float]:
    hbm = self.topology.chip.hbm
    memory = self.bytes(settings)
    return hbm is not None and memory > hbm, self.seconds(settings) or 0.0, memory

  def _remats(self) -> tuple[str, ...]:
    """Return the policies to try, from most to least stored bytes, and the config's own."""
    tried = ['none', 'dots', 'attention', 'full']
    if self.topology.chip.platform != 'cpu':
      tried.append('residual@host')
    return tuple(dict.fromkeys([*tried, self.x.remat]))

  def _meshes(self) -> Iterator[Sizes]:
    """Yield the meshes that divide the batch and the parameters."""
    n = self.topology.count
    experts = 'E' in ''.join(jax.tree.leaves(self._letters))
    # A sequence is split only where the batch has fewer examples than there are chips.
    longest = -(-n // self.x.data.batch)
    tensors = [t for t in _divisors(n) if t <= _TENSOR]
    sizes = itertools.product(
      tensors,
      _divisors(n) if experts else [1],
      _divisors(longest),
    )
    for tensor, expert, sequence in sizes:
      rest, left = divmod(n, tensor * expert * sequence)
      for data in () if left else {1, rest}:
        axes = {'data': data, 'fsdp': rest // data, 'tensor': tensor, 'expert': expert}
        axes['sequence'] = sequence
        mesh = tuple((name, axes.get(name, 1)) for name in NAMES)
        if self._state_bytes(mesh) is not None:
          yield mesh

  def _batch_ways(self, mesh: Sizes) -> int:
    sizes = dict(mesh)
    table = sized(self.x.mesh, mesh).table()
    return math.prod(sizes[name] for name in table['B'])

  def _token_ways(self, mesh: Sizes) -> int:
    """Return the number of devices that split the tokens of a batch."""
    return self._batch_ways(mesh) * dict(mesh)['sequence']

  def _stored(self, remat: str) -> int:
    """Return the bytes of `saved` on the device."""
    return 0 if offloads(remat) else self.saved(remat)

  @functools.cache
  def _state_bytes(self, mesh: Sizes) -> tuple[int, int] | None:
    """Return (bytes of the state, of the gradients) on a chip; None if a mesh axis divides none."""
    new = sized(self.x.mesh, mesh)
    try:
      chips = shard.make_mesh(new, self._devices)
      where = shard.shardings(chips, new.table(), self._letters, self._shapes)[0]
      constants = constant_shapes(self.x, chips)
    except errors.UserError:
      return None
    state = shard.sharded_shapes(self._shapes, where)
    trained = bytes_per_chip(self.x.optim.trained(state['params']))
    return bytes_per_chip((state, constants)), trained

  @functools.cache
  def saved(self, remat: str) -> int:
    """Return the bytes that the backward pass of the whole batch reads, besides parameters."""
    x = dataclasses.replace(self.x, remat=remat.replace(HOST, ''))
    batch = x.task.shapes(x.model, x.data)
    key = jax.eval_shape(lambda: jax.random.key(0))

    constants = {name: transformer.param_shapes(m, x.run()) for name, m in x.models.items()}

    def residuals(params: Any, batch: Any, key: Any, constants: Any) -> Any:
      def loss(params: Any) -> Any:
        models = {name: (x.models[name], values) for name, values in constants.items()}
        forward = Forward(x.model, params, x.run(), key, models)
        return x.task.loss(forward, batch, forward.task_key)['loss'].sum

      return jax.vjp(loss, params)[1]

    with traced_for(self.topology.chip.platform):
      saved = jax.eval_shape(residuals, self._shapes['params'], batch, key, constants)
      arrays = jax.tree.leaves(saved)
    given = [(a.shape, a.dtype) for a in jax.tree.leaves(self._shapes['params'])]
    total = 0
    for array in arrays:
      if (array.shape, array.dtype) in given:
        given.remove((array.shape, array.dtype))
      elif not jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key):
        total += math.prod(array.shape) * array.dtype.itemsize
    return total

  def bytes(self, s: Settings) -> float:
    """Return the predicted memory of a chip."""
    known = self._state_bytes(s.mesh)
    assert known is not None
    state, gradients = known
    ways = self._token_ways(s.mesh) * s.accumulate
    layers = max(1, sum(segment.repeats for segment in self.x.model.segments))
    # While a layer is differentiated, its recomputed activations add to the saved ones.
    working = (self.saved('none') - self.saved(s.remat)) / layers
    return state + gradients + (self._stored(s.remat) + working) / ways

  def seconds(self, s: Settings) -> float | None:
    """Return the predicted least time of a step; None for chips with unknown speed."""
    chip = self.topology.chip
    if chip.flops is None:
      return None
    full, none = self.saved('full'), self.saved('none')
    again = (none - self.saved(s.remat)) / max(none - full, 1)  # recomputed share of a forward
    compute = self._flops * (1 + again / 3) / self.topology.count / chip.flops
    times = compute, self._communication(s), self._traffic(s) / (chip.bandwidth or math.inf)
    return max(times) + 0.05 * sum(times)  # of equal settings, the one with less of all

  def _traffic(self, s: Settings) -> float:
    """Return the bytes of HBM that a step reads and writes.

    Activations are written and read forward and backward, weights are read in each pass of each
    micro-batch, and the state is read and written once.
    """
    known = self._state_bytes(s.mesh)
    assert known is not None
    width = self.x.precision.dtype('compute').itemsize
    params = sum(a.size for a in jax.tree.leaves(self._shapes['params'])) / dict(s.mesh)['tensor']
    activations = 4 * self.saved('none') / self._token_ways(s.mesh)
    return activations + 2 * known[0] + s.accumulate * (3 * params * width + 2 * known[1])

  def _communication(self, s: Settings) -> float:
    """Return the seconds of gathering weights, reducing gradients, and tensor parallelism."""
    received, sizes = self.topology.received_per_second, dict(s.mesh)
    if not received:
      return 0.0
    width = self.x.precision.dtype('compute').itemsize
    params = sum(a.size for a in jax.tree.leaves(self._shapes['params'])) / sizes['tensor']
    passes = 3 if s.remat != 'none' else 2
    moved = 0.0
    if sizes['fsdp'] > 1:
      moved += s.accumulate * passes * params * width * (1 - 1 / sizes['fsdp'])
    if sizes['data'] * sizes['fsdp'] > 1:
      moved += s.accumulate * 4 * params
    if sizes['tensor'] > 1:
      tokens = self.x.task.per_step(self.x.data)[1] / self._token_ways(s.mesh)
      layers = sum(segment.repeats * len(segment.pattern) for segment in self.x.model.segments)
      moved += 2 * passes * layers * tokens * (self.x.model.d_model or 0) * width * 2
    return moved / received


def sized(mesh: Mesh, sizes: Sizes) -> Mesh:
  """Return the mesh with other sizes."""
  changes: dict[str, Any] = dict(sizes)
  return dataclasses.replace(mesh, **changes)


def _divisors(n: int) -> list[int]:
  return [d for d in range(1, n + 1) if n % d == 0]
