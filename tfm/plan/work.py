"""The work of a compiled program on one chip: FLOPs, HBM traffic and collectives."""

from collections.abc import Iterator, Mapping
import dataclasses
import math
import re
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tfm.plan.hlo import Array, Computation, Instruction, Module, trip_count


class Collective(NamedTuple):
  """Communication of one kind over the same mesh axes, in one call of the program.

  Attributes:
    kind: Such as 'all-gather'.
    axes: The mesh axes, joined by '+'.
    runs: How often it runs.
    bytes: The bytes that a chip receives.
  """

  kind: str
  axes: str
  runs: int
  bytes: int


@dataclasses.dataclass(frozen=True)
class Work:
  """The work of one chip in one call of a program.

  Attributes:
    flops: FLOPs of matrix products and convolutions, and the estimates of kernels.
    kernels: How often custom kernels without an estimate of their FLOPs run.
    hbm_bytes: Bytes read from and written to HBM.
    collectives: The communication, largest first.
    unknown_loops: The loops whose trip count is unknown; they count once.
  """

  flops: float
  kernels: int
  hbm_bytes: float
  collectives: tuple[Collective, ...]
  unknown_loops: int

  def json(self) -> dict[str, Any]:
    """Return the work as JSON values."""
    return {
      'flops_per_chip': self.flops,
      'hbm_traffic_bytes': self.hbm_bytes,
      'collectives': [c._asdict() for c in self.collectives],
    }

  @property
  def collective_bytes(self) -> int:
    """The bytes that a chip receives in all collectives."""
    return sum(c.bytes for c in self.collectives)


def measure(module: Module, mesh: Mapping[str, int]) -> Work:
  """Return the work of a program on one chip.

  Args:
    module: The program.
    mesh: The sizes of the mesh axes, in the order of the devices.

  Returns:
    Its work. Loop bodies count as often as they run.
  """
  flops, kernels, traffic = 0.0, 0, 0.0
  for name, times in module.runs.items():
    computation = module.computations[name]
    for instruction in computation.instructions.values():
      known = instruction_flops(computation, instruction)
      flops += times * (known or 0)
      kernels += times * (known is None)
  for computation, instruction, times in module.executed():
    traffic += times * _traffic(module, computation, instruction)
  return Work(flops, kernels, traffic, _collectives(module, mesh), _unknown_loops(module))


def instruction_flops(computation: Computation, instruction: Instruction) -> float | None:
  """Return the FLOPs of an instruction, or None for a kernel that does not state them.

  Only matrix products, convolutions and kernels count.
  """
  if instruction.op == 'dot':
    left = computation.operands(instruction)[0].arrays[0]
    contracted = math.prod(left.shape[i] for i in _indices(instruction, 'lhs_contracting_dims'))
    return 2.0 * math.prod(instruction.arrays[0].shape) * contracted
  if instruction.op == 'convolution':
    left, right = (operand.arrays[0] for operand in computation.operands(instruction))
    return _convolution_flops(instruction, left, right)
  if instruction.op == 'custom-call':
    return _kernel_flops(computation, instruction)
  return 0.0


def _indices(instruction: Instruction, name: str) -> list[int]:
  match = re.search(rf'{name}=\{{([0-9,]*)\}}', instruction.rest)
  return _numbers(match[1] if match else '')


def _numbers(text: str) -> list[int]:
  """Return the numbers of a list such as '0,2'."""
  return [int(n) for n in re.findall(r'\d+', text)]


def _convolution_flops(instruction: Instruction, left: Array, right: Array) -> float:
  """Return 2 x products of a convolution, without those with padding.

  XLA writes many matrix products as convolutions, and batched ones with windows that mostly cover
  padding.
  """
  match = re.search(r'dim_labels=([^\s,]+)_([^\s,]+)->([^\s,]+)', instruction.rest)
  assert match is not None, instruction.rest
  lhs, rhs, out = match[1], match[2], match[3]
  result = instruction.arrays[0].shape
  batch, features = result[out.index('b')], result[out.index('f')]
  inputs = right.shape[rhs.index('i')]
  products = batch * features * inputs
  window = _window(instruction)
  spatial = [label for label in out if label.isdigit()]
  for i, label in enumerate(spatial):
    products *= _overlaps(
      left.shape[lhs.index(label)], right.shape[rhs.index(label)], result[out.index(label)],
      {name: values[i] for name, values in window.items() if i < len(values)},
    )  # fmt: skip
  return 2.0 * products


def _window(instruction: Instruction) -> dict[str, list[str]]:
  match = re.search(r'window=\{([^}]*)\}', instruction.rest)
  if not match:
    return {}
  pairs = (part.partition('=') for part in match[1].split())
  return {name: values.split('x') for name, _, values in pairs}


def _overlaps(left: int, right: int, out: int, window: Mapping[str, str]) -> int:
  """Return the (output, window) positions of one axis that read an input, not padding."""
  stride = int(window.get('stride', 1))
  low = int(window.get('pad', '0_0').split('_')[0])
  spread, dilation = int(window.get('lhs_dilate', 1)), int(window.get('rhs_dilate', 1))
  at = np.arange(out)[:, None] * stride - low + np.arange(right)[None] * dilation
  inside = (at >= 0) & (at <= (left - 1) * spread) & (at % spread == 0)
  return int(inside.sum())


def _kernel_flops(computation: Computation, instruction: Instruction) -> float | None:
  """Return the FLOPs of a custom call: a kernel with an estimate, or a library's product."""
  target = instruction.attribute('custom_call_target') or ''
  if 'gemm' in target or 'matmul' in target:
    left = computation.operands(instruction)[0].arrays[0]
    match = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', instruction.rest)
    axes = _numbers(match[1]) if match else [len(left.shape) - 1]
    contracted = math.prod(left.shape[i] for i in axes)
    return 2.0 * math.prod(instruction.arrays[0].shape) * contracted
  if 'tpu_custom_call' in target or 'triton' in target or 'cudnn' in target:
    match = re.search(r'"cost_estimate":\{[^}]*"flops":"?([\d.e+]+)', instruction.rest)
    return float(match[1]) if match else None
  return 0.0


#: Operations that move no bytes: they name, select or reinterpret.
_FREE = frozenset({
  'parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'after-all', 'while', 'call',
  'conditional', 'optimization-barrier', 'partition-id', 'replica-id', 'iota', 'domain',
})  # fmt: skip
_FREE_CALLS = ('AllocateBuffer', 'ConcatBitcast', 'AssumeGatherIndicesInBound', 'Sharding')


def _traffic(module: Module, computation: Computation, instruction: Instruction) -> float:
  """Return the bytes of HBM that an instruction reads and writes."""
  op = instruction.op
  if op in _FREE or op.endswith('-done') or op.startswith('async'):
    return 0.0
  if op == 'custom-call' and (instruction.attribute('custom_call_target') or '').strip('"') in (
    _FREE_CALLS
  ):
    return 0.0
  operands = computation.operands(instruction)
  if op in ('dynamic-slice', 'slice', 'gather'):
    return 2.0 * instruction.hbm_bytes
  if op in ('dynamic-update-slice', 'scatter'):
    return 2.0 * operands[1 if op == 'dynamic-update-slice' else -1].hbm_bytes
  if op.endswith('-start'):  # the result repeats the operands
    return 2.0 * sum(operand.hbm_bytes for operand in operands)
  if op != 'fusion':
    return float(sum(o.hbm_bytes for o in operands) + instruction.hbm_bytes)
  fused = module.computations[instruction.called[0]]
  read = sum(
    min(operand.hbm_bytes, _read_of(module, fused, parameter, operand))
    for operand, parameter in zip(operands, fused.parameters, strict=False)
  )
  return float(read + _written_by(fused, instruction))


def _users(computation: Computation, name: str) -> Iterator[Instruction]:
  for instruction in computation.instructions.values():
    if name in instruction.operands:
      yield instruction


def _read_of(
  module: Module, fused: Computation, parameter: Instruction, operand: Instruction
) -> float:
  """Return the bytes of an operand that a fusion reads: only slices of some.

  Args:
    module: The program.
    fused: The computation of the fusion, or of a fusion inside it.
    parameter: The parameter of `fused` for the operand, or a bitcast of it.
    operand: The operand of the outermost fusion.

  Returns:
    The bytes.
  """
  total = 0.0
  for user in _users(fused, parameter.name):
    if user.op in ('dynamic-slice', 'slice', 'gather'):
      total += user.bytes
    elif user.op == 'dynamic-update-slice' and user.operands[0] == parameter.name:
      total += 0.0  # updated in place
    elif user.op == 'bitcast':
      total += _read_of(module, fused, user, operand)
    elif user.op == 'fusion':  # a TPU slices the operand of a product in a nested fusion
      inner = module.computations[user.called[0]]
      inner_parameter = inner.parameters[user.operands.index(parameter.name)]
      total += _read_of(module, inner, inner_parameter, operand)
    else:
      return float(operand.hbm_bytes)
  return total


def _written_by(fused: Computation, instruction: Instruction) -> float:
  """Return the bytes that a fusion writes: only the updates of those in place."""
  root = fused.root
  results = fused.operands(root) if root.op == 'tuple' else [root]
  total = 0.0
  for result, array in zip(results, instruction.arrays, strict=False):
    while result.op in ('bitcast', 'copy') and result.operands[0] in fused.instructions:
      result = fused.instructions[result.operands[0]]
    if result.op == 'dynamic-update-slice':
      total += min(array.hbm_bytes, fused.instructions[result.operands[1]].bytes)
    else:
      total += array.hbm_bytes
  return total


KINDS = ('all-gather', 'all-reduce', 'reduce-scatter', 'all-to-all', 'collective-permute')


def _collectives(module: Module, mesh: Mapping[str, int]) -> tuple[Collective, ...]:
  """Return the collectives of a program by kind and mesh axes, largest first."""
  counts: dict[tuple[str, str], list[int]] = {}
  seen: set[tuple[str, int]] = set()
  for name, times in module.runs.items():
    computation = module.computations[name]
    for instruction in computation.instructions.values():
      kind = instruction.op.removesuffix('-start')
      if kind not in KINDS:
        continue
      # A TPU splits some collectives over several fusions; each piece repeats the channel.
      channel = instruction.attribute('channel_id') or instruction.name
      if (channel, times) in seen:
        continue
      seen.add((channel, times))
      group = groups(instruction.rest, mesh)
      moved = _received(kind, computation, instruction, len(group))
      entry = counts.setdefault((kind, _axes(group, mesh)), [0, 0])
      entry[0] += times
      entry[1] += times * moved
  found = [Collective(*key, *value) for key, value in counts.items() if value[1]]
  return tuple(sorted(found, key=lambda c: -c.bytes))


def _received(kind: str, computation: Computation, instruction: Instruction, n: int) -> int:
  """Return the bytes that a chip receives in a collective of `n` chips."""
  size = sum(operand.bytes for operand in computation.operands(instruction))
  share = {
    'all-gather': n - 1,
    'reduce-scatter': (n - 1) / n,
    'all-reduce': 2 * (n - 1) / n,
    'all-to-all': (n - 1) / n,
    'collective-permute': 1,
  }
  return int(size * share[kind])


def groups(rest: str, mesh: Mapping[str, int]) -> list[int]:
  """Return the devices of one group of a collective.

  Args:
    rest: The attributes of the instruction.
    mesh: The sizes of the mesh axes.

  Returns:
    Indices of devices in the mesh: the first group of `replica_groups`, or the devices that
    `source_target_pairs` connect with the first.
  """
  if match := re.search(r'source_target_pairs=\{\{(\d+),(\d+)\}', rest):
    return [int(match[1]), int(match[2])]
  if match := re.search(r'replica_groups=\{\{([\d,]*)\}', rest):
    return [int(i) for i in match[1].split(',') if i]
  iota = r'\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?'
  if match := re.search('replica_groups=' + iota, rest):
    ids = _iota(match[3], match[4]).reshape(int(match[1]), int(match[2]))
    return [int(i) for i in ids[0]]
  order = r'(?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))?'
  named = rf'replica_groups=mesh\[([^\]]*)\]{order}\s*\{{([^}}]*)\}}'
  if match := re.search(named, rest):
    sizes = {name: int(n) for name, n in re.findall(r"'([^']+)'=(\d+)", match[1])}
    ids = _iota(match[2] or str(math.prod(sizes.values())), match[3]).reshape([*sizes.values()])
    chosen = re.findall(r"'([^']+)'", match[4])
    others = tuple(i for i, name in enumerate(sizes) if name not in chosen)
    group = np.moveaxis(ids, others, range(len(others)))[(0,) * len(others)]
    return [int(i) for i in group.ravel()]
  return [*range(math.prod(mesh.values()))]


def _iota(sizes: str, order: str | None) -> NDArray[np.int64]:
  """Return the indices 0, 1, ... in the given sizes, transposed by the given order."""
  shape = _numbers(sizes)
  ids = np.arange(math.prod(shape)).reshape(shape)
  return ids.transpose(_numbers(order)) if order else ids


def _axes(group: list[int], mesh: Mapping[str, int]) -> str:
  """Return the mesh axes along which the devices of a group differ."""
  sizes = [*mesh.values()]
  places = np.array(np.unravel_index(np.array(group) % math.prod(sizes), sizes))
  varied = (places != places[:, :1]).any(axis=1)
  return '+'.join(name for name, varies in zip(mesh, varied, strict=True) if varies)


def _unknown_loops(module: Module) -> int:
  unknown = 0
  for name in module.runs:
    for instruction in module.computations[name].instructions.values():
      if instruction.op == 'while' and trip_count(module, name, instruction) is None:
        unknown += 1
  return unknown
