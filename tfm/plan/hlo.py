"""Compiled XLA programs, parsed from their text: computations, instructions, loop trip counts."""

from collections.abc import Iterator
import dataclasses
import functools
import math
import re

#: Bits of an element, by the name of its type in HLO.
_BITS = {'pred': 8, 'token': 0, 'opaque': 0}

_SHAPE = re.compile(r'([a-z]+\d*[a-z0-9]*)\[([0-9,<=]*)\](\{[^}]*\})?')
_HEADER = re.compile(r'^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$')
_LINE = re.compile(r'^\s+(ROOT )?%?([\w.\-]+) = ')
_NAME = re.compile(r'%([\w.\-]+)')
_CALLED = re.compile(
  r'(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)'
)
_BRANCHES = re.compile(r'branch_computations=\{([^}]*)\}')


@dataclasses.dataclass(frozen=True)
class Array:
  """An array of a result.

  Attributes:
    dtype: The element type, such as 'bf16'.
    shape: The sizes of the axes on one chip.
    on_chip: Whether the array is in on-chip memory (VMEM, SMEM) instead of HBM.
    host: Whether the array is in the memory of the host.
  """

  dtype: str
  shape: tuple[int, ...]
  on_chip: bool = False
  host: bool = False

  @property
  def bytes(self) -> int:
    """The size without padding."""
    return math.prod(self.shape) * _bits(self.dtype) // 8

  @property
  def hbm_bytes(self) -> int:
    """The size in HBM: 0 for arrays in other memories."""
    return 0 if self.on_chip or self.host else self.bytes


@dataclasses.dataclass(frozen=True)
class Instruction:
  """An instruction of a computation.

  Attributes:
    name: Its name, unique in the module.
    op: The operation, such as 'fusion'.
    arrays: The arrays of the result, flat for tuples.
    operands: The names of the operands.
    rest: The attributes, as text.
    root: Whether it is the result of its computation.
  """

  name: str
  op: str
  arrays: tuple[Array, ...]
  operands: tuple[str, ...]
  rest: str
  root: bool = False

  @property
  def bytes(self) -> int:
    """The bytes of the result, in any memory."""
    return sum(array.bytes for array in self.arrays)

  @property
  def hbm_bytes(self) -> int:
    """The bytes of the result in HBM."""
    return sum(array.hbm_bytes for array in self.arrays)

  @functools.cached_property
  def source(self) -> str:
    """The path of the operation in the traced program, '' if unknown."""
    match = re.search(r'op_name="([^"]*)"', self.rest)
    return match[1] if match else ''

  @functools.cached_property
  def called(self) -> tuple[str, ...]:
    """The names of the computations that it calls."""
    found = _CALLED.findall(self.rest)
    for listed in _BRANCHES.findall(self.rest):
      found += _NAME.findall(listed)
    return tuple(dict.fromkeys(found))

  def attribute(self, name: str) -> str | None:
    """Return the text of an attribute without braces or spaces, such as `index`."""
    match = re.search(rf'\b{name}=([^,\s]+)', self.rest)
    return match[1].strip('{}') if match else None


@dataclasses.dataclass(frozen=True)
class Computation:
  """A computation: its instructions in the order in which they run.

  Attributes:
    name: Its name.
    instructions: By name, in order.
  """

  name: str
  instructions: dict[str, Instruction]

  @functools.cached_property
  def root(self) -> Instruction:
    """The instruction with the result."""
    found = [i for i in self.instructions.values() if i.root]
    return found[0] if found else list(self.instructions.values())[-1]

  @functools.cached_property
  def parameters(self) -> tuple[Instruction, ...]:
    """The parameters, by index."""
    found = [i for i in self.instructions.values() if i.op == 'parameter']
    return tuple(sorted(found, key=lambda i: int(i.rest.partition(')')[0])))

  def operands(self, instruction: Instruction) -> list[Instruction]:
    """Return the operands of an instruction of this computation."""
    return [self.instructions[name] for name in instruction.operands if name in self.instructions]


@dataclasses.dataclass(frozen=True)
class Module:
  """A compiled program.

  Attributes:
    entry: The name of the computation that runs.
    computations: By name.
  """

  entry: str
  computations: dict[str, Computation]

  @functools.cached_property
  def runs(self) -> dict[str, int]:
    """How often each computation runs in one call of the program: products of trip counts."""
    counts: dict[str, int] = {}

    def visit(name: str, times: int) -> None:
      counts[name] = counts.get(name, 0) + times
      for instruction in self.computations[name].instructions.values():
        loops = trip_count(self, name, instruction) if instruction.op == 'while' else 1
        for called in instruction.called:
          if called in self.computations:
            visit(called, times * (loops or 1))

    visit(self.entry, 1)
    return counts

  @functools.cached_property
  def fused(self) -> frozenset[str]:
    """The computations inside fusions and reducers. Their results stay in registers."""
    inside: set[str] = set()
    for computation in self.computations.values():
      for instruction in computation.instructions.values():
        if instruction.op not in _CALLERS:
          inside |= set(instruction.called)
    return frozenset(inside)

  def executed(self) -> Iterator[tuple[Computation, Instruction, int]]:
    """Yield (computation, instruction, times that it runs), without the insides of fusions."""
    for name, times in self.runs.items():
      if name not in self.fused:
        computation = self.computations[name]
        for instruction in computation.instructions.values():
          yield computation, instruction, times


#: Operations that run the computations they call as programs; others only fuse or reduce with them.
_CALLERS = frozenset({'while', 'conditional', 'call', 'async-start'})


def parse(text: str) -> Module:
  """Return the module of `compiled.as_text()`."""
  entry, computations = '', {}
  name, instructions = '', dict[str, Instruction]()
  for line in text.splitlines():
    if header := _HEADER.match(line):
      name, instructions = header[2], {}
      entry = name if header[1] else entry
    elif line == '}':
      computations[name] = Computation(name, instructions)
    elif line.startswith('  ') and (start := _LINE.match(line)):
      instruction = _instruction(line, start)
      instructions[instruction.name] = instruction
  return Module(entry, computations)


def _instruction(line: str, start: re.Match[str]) -> Instruction:
  """Return the instruction of a line: `name = shape op(operands), attributes`."""
  at = _end_of_shape(line, start.end())
  shape, tail = line[start.end() : at], line[at:].lstrip()
  op, _, tail = tail.partition('(')
  end = _closing(tail)
  inside, rest = tail[:end], tail[end + 1 :]
  if op in ('parameter', 'constant'):
    return Instruction(start[2], op, arrays(shape), (), f'{inside}){rest}', bool(start[1]))
  return Instruction(
    start[2], op, arrays(shape), tuple(_NAME.findall(inside)), rest, bool(start[1])
  )


def _end_of_shape(line: str, start: int) -> int:
  """Return the index after the shape that starts at `start`: a tuple in parentheses or a word."""
  if line[start] != '(':
    return line.index(' ', start)
  return start + 1 + _closing(line[start + 1 :]) + 1


def _closing(text: str) -> int:
  """Return the index of the parenthesis that closes one before `text`."""
  depth = 1
  for match in re.finditer(r'[()]', text):
    depth += 1 if match[0] == '(' else -1
    if depth == 0:
      return match.start()
  return len(text)


@functools.lru_cache(maxsize=1 << 16)
def arrays(text: str) -> tuple[Array, ...]:
  """Return the arrays of a shape, such as `(f32[2,3]{1,0:T(8,128)S(1)}, s32[])`."""
  found = []
  for dtype, sizes, layout in _SHAPE.findall(text):
    space = re.search(r'S\((\d+)\)', layout)
    number = int(space[1]) if space else 0
    shape = tuple(int(n.removeprefix('<=')) for n in sizes.split(',') if n)
    found.append(Array(dtype, shape, on_chip=number not in (0, 5), host=number == 5))
  return tuple(found)


def _bits(dtype: str) -> int:
  if dtype in _BITS:
    return _BITS[dtype]
  digits = re.match(r'[a-z]+(\d+)', dtype)
  return int(digits[1]) if digits else 8


def trip_count(module: Module, name: str, loop: Instruction) -> int | None:
  """Return how often the body of a loop runs, or None if the text does not tell.

  XLA notes the count of some loops. Of others it follows from the condition `i < constant`, the
  start of `i`, and its increment in the body.

  Args:
    module: The program.
    name: The computation of the loop.
    loop: The `while` instruction.

  Returns:
    The count.
  """
  if known := re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.rest):
    return int(known[1])
  condition = module.computations[_called(loop, 'condition')]
  body = module.computations[_called(loop, 'body')]
  compared = _compare(module, condition)
  if compared is None:
    return None
  index, limit, inclusive = compared
  start = _tuple_constant(module, module.computations[name], loop, index)
  step = _increment(module, body, index)
  if start is None or not step:
    return None
  return max(0, math.ceil((limit + inclusive - start) / step))


def _called(loop: Instruction, which: str) -> str:
  match = re.search(rf'{which}=%?([\w.\-]+)', loop.rest)
  assert match is not None
  return match[1]


def _compare(module: Module, condition: Computation) -> tuple[int, int, int] | None:
  """Return (index of the loop variable, limit, 1 if inclusive) of `i < limit`."""
  root = condition.root
  names = {i.name: i for i in condition.instructions.values()}
  operands = condition.operands(root)
  if root.op == 'fusion':
    inner = module.computations[root.called[0]]
    parameters = {p.name: operand for p, operand in zip(inner.parameters, operands, strict=True)}
    root = inner.root
    operands = [parameters.get(name, inner.instructions[name]) for name in root.operands]
  if root.op != 'compare' or len(operands) != 2:
    return None
  direction = root.attribute('direction')
  variable, limit = [_through(names, operand) for operand in operands]
  number, index = _number(limit), variable.attribute('index')
  if number is None or index is None or direction not in ('LT', 'LE'):
    return None
  return int(index), number, int(direction == 'LE')


def _tuple_constant(
  module: Module, computation: Computation, loop: Instruction, index: int
) -> int | None:
  """Return the constant that element `index` of a loop's input starts with."""
  value = _element(computation, computation.instructions[loop.operands[0]], index)
  value = None if value is None else _through(computation.instructions, value)
  if value is None:
    return None
  if value.op == 'get-tuple-element':
    # The result of an earlier loop or a parameter of the computation: unknown.
    return None
  return _number(value)


def _increment(module: Module, body: Computation, index: int) -> int | None:
  """Return the constant that a body adds to element `index` of its state."""
  value = _element(body, body.root, index)
  if value is None:
    return None
  value = _through(body.instructions, value)
  inner, operands = value, body.operands(value)
  if value.op == 'fusion':
    fused = module.computations[value.called[0]]
    inner = fused.root
    parameters = {p.name: o for p, o in zip(fused.parameters, operands, strict=True)}
    operands = [parameters.get(name, fused.instructions[name]) for name in inner.operands]
  if inner.op != 'add':
    return None
  numbers = [_number(_through(body.instructions, operand)) for operand in operands]
  known = [number for number in numbers if number is not None]
  return known[0] if len(known) == 1 else None


def _element(computation: Computation, value: Instruction, index: int) -> Instruction | None:
  """Return element `index` of a tuple."""
  while value.op in ('copy', 'optimization-barrier', 'bitcast'):
    value = computation.instructions[value.operands[0]]
  if value.op != 'tuple' or index >= len(value.operands):
    return None
  return computation.instructions[value.operands[index]]


def _through(names: dict[str, Instruction], value: Instruction) -> Instruction:
  """Return the value before copies, converts and bitcasts."""
  while value.op in ('copy', 'bitcast', 'convert') and value.operands[0] in names:
    value = names[value.operands[0]]
  return value


def _number(value: Instruction) -> int | None:
  match = re.match(r'(-?\d+)\)', value.rest) if value.op == 'constant' else None
  return int(match[1]) if match else None
