"""Plan a program: compile it for chips that need not be there, and read off its cost."""

from collections.abc import Callable
import dataclasses
import time
from typing import Any

import jax

from tfm.core import errors
from tfm.plan import memory as memory_lib
from tfm.plan import work as work_lib
from tfm.plan.hlo import Module, parse
from tfm.plan.memory import Memory
from tfm.plan.programs import STEPS, Program
from tfm.plan.topology import Topology
from tfm.plan.work import Work
from tfm.train import compile_cache
from tfm.train.experiment import Experiment


@dataclasses.dataclass(frozen=True)
class Plan:
  """The cost of a program on chips of a topology. Sizes and work are per chip.

  Attributes:
    step: The kind of program, a name of `STEPS`.
    topology: The chips.
    mesh: The sizes of the mesh axes.
    memory: The memory.
    work: FLOPs, HBM traffic and collectives; None for a program that does not fit.
    model_flops: The FLOPs of the model without recomputation; None if unknown.
    tokens: The tokens (or examples) of a step over all chips.
    unit: 'tokens' or 'examples'.
    trace_seconds: The time to trace and lower the program.
    compile_seconds: The time to compile it.
    notes: Sentences about what the plan leaves open.
  """

  step: str
  topology: Topology
  mesh: dict[str, int]
  memory: Memory
  work: Work | None
  model_flops: float | None
  tokens: int
  unit: str
  trace_seconds: float
  compile_seconds: float
  notes: tuple[str, ...] = ()

  @property
  def fits(self) -> bool:
    """Whether the program fits into HBM. Programs for CPUs always do."""
    return self.topology.chip.hbm is None or self.memory.peak <= self.topology.chip.hbm

  @property
  def seconds(self) -> dict[str, float]:
    """The least time of each resource: 'compute', 'HBM' and 'interconnect'. Empty if unknown."""
    chip, work = self.topology.chip, self.work
    if work is None or chip.flops is None or chip.bandwidth is None:
      return {}
    found = {'compute': work.flops / chip.flops, 'HBM': work.hbm_bytes / chip.bandwidth}
    received = self.topology.received_per_second
    if received:
      found['interconnect'] = work.collective_bytes / received
    return found

  @property
  def floor(self) -> float | None:
    """The least time of a step in seconds, if all resources are used in parallel."""
    return max(self.seconds.values(), default=None)

  @property
  def bound(self) -> str | None:
    """The resource that takes the longest."""
    return max(self.seconds, key=lambda name: self.seconds[name], default=None)

  @property
  def mfu(self) -> float | None:
    """The highest MFU that the least time allows."""
    chip = self.topology.chip
    if self.model_flops is None or chip.flops is None or not self.floor:
      return None
    return self.model_flops / chip.flops / self.floor

  def json(self) -> dict[str, Any]:
    """Return the plan as JSON values."""
    unknown: dict[str, Any] = {'flops_per_chip': None, 'hbm_traffic_bytes': None, 'collectives': []}
    mesh = {name: n for name, n in self.mesh.items() if n > 1}
    return {
      'step': self.step,
      'topology': str(self.topology),
      'chips': self.topology.count,
      'mesh': mesh,
      'fits': self.fits,
      'hbm_bytes_per_chip': self.topology.chip.hbm,
      'peak_hbm_bytes_per_chip': self.memory.peak,
      'bytes': self.memory.bytes,
      'host_bytes_per_chip': self.memory.host,
      'model_flops_per_chip': self.model_flops,
      **(unknown if self.work is None else self.work.json()),
      'seconds': self.seconds,
      'step_seconds_floor': self.floor,
      'bound': self.bound,
      'mfu_bound': self.mfu,
      f'{self.unit}_per_step': self.tokens,
      'trace_seconds': self.trace_seconds,
      'compile_seconds': self.compile_seconds,
      'jax': jax.__version__,
      'notes': list(self.notes),
    }


def plan(
  x: Experiment,
  topology: Topology,
  step: str = 'train',
  compiled_to: Callable[[Any, Any], None] | None = None,
) -> Plan:
  """Compile a program of an experiment for a topology, and return its cost.

  Args:
    x: A valid experiment. Its mesh must fit the chips.
    topology: The chips, which need not be there.
    step: 'train', 'eval', 'prefill' or 'decode'.
    compiled_to: Called with the lowered and the compiled program, if it fits.

  Returns:
    The plan.

  Raises:
    UserError: The mesh does not fit the chips, or the config cannot be used for the step.
  """
  devices = topology.devices()
  start = time.perf_counter()
  program = STEPS[step](x, devices)
  lowered = program.trace().lower()
  traced = time.perf_counter()
  try:
    with compile_cache.bypassed():  # a program for absent chips cannot be read back
      compiled = lowered.compile()
    needed = None
  except jax.errors.JaxRuntimeError as error:
    needed = memory_lib.bytes_needed(str(error))
    if needed is None:
      raise errors.UserError(
        f'plan: the compiler failed for {topology}: {str(error).splitlines()[0]}'
      ) from error
  compile_seconds = time.perf_counter() - traced
  if needed is None:
    if compiled_to is not None:
      compiled_to(lowered, compiled)
    module = _module(compiled)
    work = None if module is None else work_lib.measure(module, program.mesh.shape)
    memory = memory_lib.of_compiled(compiled, module, program)
  else:
    work, memory = None, memory_lib.too_large(needed, program)
  return Plan(
    step=step,
    topology=topology,
    mesh=dict(program.mesh.shape),
    memory=memory,
    work=work,
    model_flops=None if program.model_flops is None else program.model_flops / topology.count,
    tokens=program.tokens,
    unit=program.unit,
    trace_seconds=traced - start,
    compile_seconds=compile_seconds,
    notes=tuple(_notes(program, work, needed is None)),
  )


def _module(compiled: Any) -> Module | None:
  """Return the parsed text of a compiled program, or None if jax cannot read it back."""
  try:
    return parse(compiled.as_text())
  except jax.errors.JaxRuntimeError:
    return None


def _notes(program: Program, work: Work | None, fits: bool) -> list[str]:
  notes = list(program.notes)
  if work is None and fits:
    notes.append(
      'jax cannot read the text of this compiled program back: FLOPs, traffic and collectives are '
      'unknown, and temporary buffers are not divided into classes.'
    )
  if work is not None and work.kernels:
    notes.append(f'{work.kernels} runs of kernels do not state their FLOPs, which are not counted.')
  if work is not None and work.unknown_loops:
    notes.append(
      f'{work.unknown_loops} loops have an unknown trip count: FLOPs, traffic and collectives '
      'count one pass of each.'
    )
  return notes
