"""The memory of a program on one chip, by class."""

from collections.abc import Sequence
import re
from typing import Any, NamedTuple

import jax
import numpy as np

from tfm.plan.hlo import Module
from tfm.plan.live import Buffer, at_peak
from tfm.plan.programs import Program, bytes_per_chip


class Memory(NamedTuple):
  """The memory of a program on one chip.

  Attributes:
    peak: The bytes of HBM that the program needs: arguments, results that do not replace
      arguments, temporary buffers and code.
    bytes: Those bytes by class. 'temporaries' is what belongs to no other class.
    largest: The temporary buffers at the peak, largest first; estimated from the program's text.
    host: The bytes in the memory of the host.
  """

  peak: int
  bytes: dict[str, int]
  largest: list[Buffer]
  host: int = 0


def of_compiled(compiled: Any, module: Module | None, program: Program) -> Memory:
  """Return the memory of a compiled program.

  The compiler reports arguments and temporary buffers. How the temporary buffers divide into
  gradients, activations and copies of weights is estimated from the program's text.

  Args:
    compiled: The compiled program.
    module: Its text, parsed. None: temporary buffers are not divided into classes.
    program: The program, for its arguments.

  Returns:
    Its memory.
  """
  stats = compiled.memory_analysis()
  peak = stats.argument_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes
  peak += stats.temp_size_in_bytes + stats.generated_code_size_in_bytes
  host = stats.host_argument_size_in_bytes + stats.host_temp_size_in_bytes
  largest = [] if module is None else at_peak(module)
  known = arguments(program)
  estimated = _classes(largest, program)
  room = max(peak - sum(known.values()), 0)
  total = sum(estimated.values())
  if total > room:  # buffers that the compiler shares, and the estimate does not
    estimated = {name: int(n * room / total) for name, n in estimated.items()}
  classes = known | {name: n for name, n in estimated.items() if n}
  classes['temporaries'] = peak - sum(classes.values())
  return Memory(peak, classes, largest, host)


def too_large(needed: int, program: Program) -> Memory:
  """Return the memory of a program that the compiler refused, given the bytes that it needs."""
  known = arguments(program)
  return Memory(needed, known | {'temporaries': needed - sum(known.values())}, [])


def arguments(program: Program) -> dict[str, int]:
  """Return the bytes of the arguments of a program on one chip, by class."""
  return {name: bytes_per_chip(tree) for name, tree in program.arguments.items()}


def _classes(buffers: Sequence[Buffer], program: Program) -> dict[str, int]:
  """Return the bytes of gradients, saved activations and copies of weights among buffers."""
  weights = _shapes(program.arguments['parameters'])
  trained = set() if program.trained is None else _shapes(program.trained)
  found = {'gradients': 0, 'activations': 0, 'weight copies': 0}
  for buffer in buffers:
    if buffer.shape in trained:
      found['gradients'] += buffer.bytes
    elif re.sub(r'^\w+', '', buffer.shape) in {re.sub(r'^\w+', '', w) for w in weights}:
      found['weight copies'] += buffer.bytes
    elif _saved(buffer.source):
      found['activations'] += buffer.bytes
  return found


def _saved(source: str) -> bool:
  """Return whether an operation belongs to the forward pass of a training step."""
  return 'jvp(' in source and 'transpose(' not in source


def _shapes(tree: Any) -> set[str]:
  """Return the types and shapes of arrays on one chip, as HLO writes them."""
  found = set()
  for array in jax.tree.leaves(tree):
    shape = array.sharding.shard_shape(array.shape)
    if len(shape) > 1:
      found.add(f'{_HLO[np.dtype(array.dtype).name]}[{",".join(map(str, shape))}]')
  return found


_HLO = {
  'float32': 'f32', 'bfloat16': 'bf16', 'float16': 'f16', 'float64': 'f64', 'int32': 's32',
  'int8': 's8', 'uint8': 'u8', 'bool': 'pred', 'uint32': 'u32', 'int64': 's64', 'int16': 's16',
}  # fmt: skip


def bytes_needed(message: str) -> int | None:
  """Return the bytes that a program needs, from the error of a compiler that has fewer."""
  patterns = (
    r'total memory required for [\w ]+ \(([\d.]+)([KMGT])\)',
    r'Used ([\d.]+)([KMGT]) of [\d.]+[KMGT] hbm',
  )
  for pattern in patterns:
    if match := re.search(pattern, message):
      return int(float(match[1]) * 2 ** (10 * ('KMGT'.index(match[2]) + 1)))
  return None
