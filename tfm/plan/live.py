"""The buffers that are live when a compiled program needs the most memory.

XLA reports the peak of a program, not what lives there. This module repeats the schedule of its
text: a buffer lives from the instruction that writes it to its last use. Padding and reuse of
buffers are unknown, so the total differs from XLA's by some percent.
"""

from collections.abc import Iterable
import dataclasses

from tfm.plan.hlo import Computation, Instruction, Module


@dataclasses.dataclass(frozen=True)
class Buffer:
  """A live buffer.

  Attributes:
    bytes: Its size in HBM.
    name: The instruction that writes it.
    shape: Its type and shape, such as 'bf16[2,4096]'.
    source: The path of the operation in the traced program.
  """

  bytes: int
  name: str
  shape: str
  source: str


def at_peak(module: Module) -> list[Buffer]:
  """Return the temporary buffers at the peak of a program, largest first.

  Arguments and results of the program are not among them.
  """
  _, buffers = _peak(module, module.entry, {})
  return sorted(buffers, key=lambda b: -b.bytes)


#: Instructions with a result that is a view of their operands.
_VIEWS = frozenset({
  'tuple', 'get-tuple-element', 'bitcast', 'while', 'optimization-barrier', 'conditional', 'call',
})  # fmt: skip


def _peak(
  module: Module, name: str, done: dict[str, tuple[int, list[Buffer]]]
) -> tuple[int, list[Buffer]]:
  """Return the largest sum of live buffers in a computation, and the buffers."""
  if name in done:
    return done[name]
  computation = module.computations[name]
  written = {i.name: _written(module, computation, i) for i in computation.instructions.values()}
  last, results = _last_uses(computation)
  if name == module.entry:  # results have separate memory, mostly shared with arguments
    written |= {origin: [] for origin in results}
  live: dict[str, Buffer] = {}
  best: tuple[int, list[Buffer]] = (0, [])
  ends: dict[int, list[str]] = {}
  for key, at in last.items():
    ends.setdefault(at, []).append(key)
  total = 0
  for at, instruction in enumerate(computation.instructions.values()):
    for i, buffer in enumerate(written[instruction.name]):
      live[f'{instruction.name}#{i}'] = buffer
      total += buffer.bytes
    inner = _inner(module, instruction, done)
    if total + inner[0] > best[0]:
      best = total + inner[0], [*live.values(), *inner[1]]
    for origin in ends.get(at, ()):
      for key in [k for k in live if k.rpartition('#')[0] == origin]:
        total -= live.pop(key).bytes
  done[name] = best
  return best


def _inner(
  module: Module, instruction: Instruction, done: dict[str, tuple[int, list[Buffer]]]
) -> tuple[int, list[Buffer]]:
  """Return the peak inside the computations that an instruction runs."""
  if instruction.op not in ('while', 'conditional', 'call'):
    return 0, []
  peaks = [_peak(module, called, done) for called in instruction.called]
  return max(peaks, key=lambda peak: peak[0], default=(0, []))


def _written(module: Module, computation: Computation, instruction: Instruction) -> list[Buffer]:
  """Return the new buffers of an instruction."""
  if instruction.op in _VIEWS or instruction.op in ('parameter', 'constant'):
    return []
  if instruction.op.endswith('-done'):
    return []
  in_place = _in_place(module, computation, instruction)
  found = []
  for array in instruction.arrays:
    if array.hbm_bytes == 0:
      continue
    if (array.dtype, array.shape) in in_place:
      in_place.remove((array.dtype, array.shape))
      continue
    shape = f'{array.dtype}[{",".join(map(str, array.shape))}]'
    found.append(Buffer(array.hbm_bytes, instruction.name, shape, instruction.source))
  if instruction.op.endswith('-start') and found:
    # The result of a start repeats the operands before the new array.
    found = found[len(found) // 2 :]
  return found


def _in_place(
  module: Module, computation: Computation, instruction: Instruction
) -> list[tuple[str, tuple[int, ...]]]:
  """Return the types of results that overwrite an operand: updates of slices."""
  updates: list[tuple[str, tuple[int, ...]]] = []
  inner: Iterable[Instruction] = [instruction]
  if instruction.op == 'fusion':
    inner = module.computations[instruction.called[0]].instructions.values()
  for one in inner:
    if one.op in ('dynamic-update-slice', 'scatter'):
      updates.append((one.arrays[0].dtype, one.arrays[0].shape))
  if instruction.op == 'custom-call' and 'AllocateBuffer' in instruction.rest:
    return []
  operands = computation.operands(instruction)
  given = [(a.dtype, a.shape) for o in operands for a in o.arrays]
  return [update for update in updates if update in given]


def _last_uses(computation: Computation) -> tuple[dict[str, int], frozenset[str]]:
  """Return the last use of each instruction's buffers, and the buffers of the result."""
  origins: dict[str, frozenset[str]] = {}
  last: dict[str, int] = {}
  for at, instruction in enumerate(computation.instructions.values()):
    reads = [origins[o] for o in instruction.operands if o in origins]
    every = frozenset().union(*reads)
    for origin in every:
      last[origin] = at
    through = every if _forwards(instruction) else frozenset()
    origins[instruction.name] = through | {instruction.name}
    last[instruction.name] = at
  results = origins[computation.root.name]
  for origin in results:
    last[origin] = len(computation.instructions) - 1
  return last, results


def _forwards(instruction: Instruction) -> bool:
  """Return whether the result of an instruction keeps the buffers of its operands alive."""
  in_place = 'dynamic-update-slice' in instruction.name or instruction.op == 'dynamic-update-slice'
  return instruction.op in _VIEWS or instruction.op.endswith('-done') or in_place
