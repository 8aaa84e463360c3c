r"""Measure tfm on one NVIDIA GPU: numbers, training, decoding and memory, in at most 8 minutes.

    python scripts/bench/gpu.py --out=gpu.json
    python scripts/bench/gpu.py --parts=numbers,train --minutes=5
    python scripts/bench/gpu.py --tiny    # small sizes, also on a CPU

Needs `jax[cuda12]`, and for the rivals PyTorch and transformers. Nothing is downloaded. The numbers
are written after each step of a part, so that a run that ends early loses nothing. What does not
fit into the minutes, or fails, is a row that says so.

    numbers  attention kernels and small models against the CPU, and the kernel `auto` should prefer
    train    GPT-2 124M and Llama 1B in bfloat16, next to PyTorch with torch.compile
    decode   Llama 1B at batch 1, 8 and 64, next to the static cache of transformers
    memory   the peak of a training step, next to the prediction of `tfm plan`
"""

import argparse
from collections.abc import Callable, Iterator
import dataclasses
import importlib.util
import json
import os
from pathlib import Path
import statistics
import subprocess
import sys
import time
from typing import Any

import gpu_numbers
import harness
import numpy as np
from rich.console import Console

from tfm import zoo
from tfm.cli.sheets import Sheet
from tfm.core import config
from tfm.core.precision import Precision
from tfm.data.stdlib import Stdlib
from tfm.data.tokenizer import Byte
from tfm.model.count import count_params, flops_per_token
from tfm.model.spec import Model
from tfm.optim import AdamW
from tfm.optim.schedule import Constant
from tfm.parts.attend import TABLE as ATTEND
from tfm.tasks import CausalLM
from tfm.train.experiment import Experiment

Row = dict[str, Any]
PARTS = ('numbers', 'train', 'decode', 'memory')
#: name -> (batch, length) of a training step.
TRAINED = {'gpt2': (16, 1024), 'llama3.2-1b': (2, 2048)}
#: jax's device kinds -> topologies of `tfm plan`.
TOPOLOGIES = {'H200': 'h200', 'H100': 'h100', 'A100': 'a100', 'B200': 'b200', 'L4': 'l4'}
#: Predicts a step in a process without a GPU: (experiment's settings, topology) -> JSON.
PREDICT = """
import json, sys
sys.path.insert(0, sys.argv[1])
import gpu
from tfm.plan.plan import plan
from tfm.plan.topology import parse
found = plan(gpu.experiment(sys.argv[2], sys.argv[3] == 'tiny', sys.argv[4]), parse(sys.argv[5]))
print(json.dumps({'peak': found.memory.peak}))
"""


def spec_of(name: str, tiny: bool) -> Model:
  """Return a model of the zoo without dropout; `tiny` shrinks it."""
  spec = config.override(zoo.get(name), '..dropout', '0')
  return zoo.tiny(spec) if tiny else spec


def experiment(name: str, tiny: bool, attend: str) -> Experiment:
  """Return the training run of a model: AdamW, bfloat16 products, one device.

  Args:
    name: The model.
    tiny: Whether to shrink it.
    attend: The attention kernel.

  Returns:
    The experiment.
  """
  batch, length = (2, 32) if tiny else TRAINED[name]
  return Experiment(
    spec_of(name, tiny),
    data=Stdlib(tokenizer=Byte(), length=length, batch=batch),
    task=CausalLM(),
    optim=AdamW(lr=1e-4, schedule=Constant(), clip=None, decay=0.01, b2=0.999),
    precision=Precision(compute='bfloat16'),
    attend=ATTEND[attend](),
    steps=1000,
  )


def sizes_of(spec: Model, length: int) -> Any:
  """Return the sizes of a GPT-2 or Llama for PyTorch."""
  import gpu_torch

  block, layers = spec.segments[0].pattern[0], spec.segments[0].repeats
  heads, kv_heads, _ = block.mixer.sizes(spec.d_model)
  positions = spec.max_positions
  return gpu_torch.Sizes(
    positions is None, spec.vocab, spec.d_model, layers, heads, kv_heads, block.ffn.d_ff,
    positions or length,
  )  # fmt: skip


def tfm_train(name: str, tiny: bool, attend: str, loop: str, steps: int) -> Callable[[], float]:
  """Return a call that trains tfm for some steps.

  Args:
    name: The model.
    tiny: Whether to shrink it.
    attend: The attention kernel.
    loop: `scan` or `unroll`.
    steps: The number of steps in a call.

  Returns:
    A function that returns the last loss.
  """
  import jax

  from tfm.model import transformer
  from tfm.train import step as step_lib

  x = dataclasses.replace(experiment(name, tiny, attend), loop=loop)
  tx = x.optim.make(x.steps, transformer.param_letters(x.model))
  state = [jax.jit(step_lib.make_init(x, tx))(jax.random.key(0))]
  step = jax.jit(step_lib.make_step(x, tx), donate_argnums=0)
  rows = (x.data.batch, x.data.length + 1)
  tokens = np.random.default_rng(0).integers(0, x.model.vocab, rows, dtype=np.int32)
  batch = {'input_ids': tokens[:, :-1], 'labels': tokens[:, 1:]}
  given = jax.device_put(batch | {'weights': np.ones(batch['labels'].shape, np.float32)})

  def call() -> float:
    for _ in range(steps):
      state[0], metrics = step(state[0], given)
    return float(metrics['loss_nats'])

  return call


def torch_train(name: str, tiny: bool, compiled: bool, steps: int) -> Callable[[], float]:
  """Return a call that trains the same model in PyTorch; as `tfm_train`."""
  import gpu_torch

  spec, x = spec_of(name, tiny), experiment(name, tiny, 'auto')
  sizes = sizes_of(spec, x.data.length)
  return gpu_torch.train_call(
    sizes, count_params(spec), x.data.batch, x.data.length, steps, compiled
  )


def tfm_decode(name: str, tiny: bool, batch: int, context: int, new: int) -> Callable[[], Any]:
  """Return a call that decodes greedily with tfm, with bfloat16 weights.

  Args:
    name: The model.
    tiny: Whether to shrink it.
    batch: The number of sequences.
    context: The length of the prompts.
    new: The number of new tokens.

  Returns:
    A function that generates.
  """
  import jax
  import jax.numpy as jnp

  from tfm.generate import generate, prepare
  from tfm.model.transformer import init
  from tfm.parts.context import Run

  spec = spec_of(name, tiny)
  half = lambda key: jax.tree.map(lambda a: a.astype(jnp.bfloat16), init(spec, key))
  params = prepare(spec, jax.jit(half)(jax.random.key(0)))
  prompts = np.random.default_rng(0).integers(1, spec.vocab, (batch, context)).tolist()
  run = Run(Precision('bfloat16', 'bfloat16'), loop='unroll')
  return lambda: generate(spec, params, prompts, max_new_tokens=new, temperature=0, run=run)


def torch_decode(name: str, tiny: bool, batch: int, context: int, new: int) -> Callable[[], Any]:
  """Return a call that decodes with `transformers`; as `tfm_decode`."""
  import gpu_torch

  from tfm import hub

  fields, _ = hub.class_of(spec_of(name, tiny))
  return gpu_torch.decode_call(fields, batch, context, new, compiled=not tiny)


def peak_bytes(name: str, tiny: bool, attend: str) -> int | None:
  """Return the most bytes of device memory in use during training, or None if unknown."""
  import jax

  call = tfm_train(name, tiny, attend, 'scan', 1)
  for _ in range(3):
    call()
  stats = jax.devices()[0].memory_stats() or {}
  return stats.get('peak_bytes_in_use')


def describe() -> Row:
  """Return the device of jax and the versions."""
  import jax

  from tfm.train.peaks import peak

  device = jax.devices()[0]
  found = {'device': device.device_kind, 'platform': device.platform, 'jax': jax.__version__}
  return found | {'peak': peak(device)}


def rows_of(fn: Callable[..., Iterator[Row]], *args: Any) -> list[Row]:
  """Return the rows of a generator, for a separate process."""
  return list(fn(*args))


class Bench:
  """Runs parts within a time budget, in separate processes, and writes each row immediately.

  Args:
    out: The file of the numbers.
    seconds: The budget.
    tiny: Whether to use small sizes.
  """

  def __init__(self, out: Path, seconds: float, tiny: bool):
    self.out, self.tiny = out, tiny
    self.end = time.monotonic() + seconds
    self.found: dict[str, Any] = {'machine': {}, 'parts': {}}

  @property
  def left(self) -> float:
    """The seconds that remain."""
    return self.end - time.monotonic()

  def add(self, part: str, rows: list[Row]) -> None:
    """Add rows to a part, and write the file."""
    self.found['parts'].setdefault(part, []).extend(rows)
    self.save()

  def save(self) -> None:
    """Write the file."""
    self.out.parent.mkdir(parents=True, exist_ok=True)
    self.out.write_text(json.dumps(self.found, indent=1))

  def fits(self, part: str, what: Row, seconds: float) -> bool:
    """Return whether a step of `seconds` fits; otherwise add a row with the reason."""
    if self.left >= (0 if self.tiny else seconds):
      return True
    self.add(part, [what | {'verdict': f'skipped: needs {seconds:.0f} s, {self.left:.0f} s left'}])
    return False

  def apart(self, fn: Callable[..., Any], *args: Any) -> Any:
    """Return the result of a function in a separate process that ends with the budget.

    Raises:
      RuntimeError: The function failed, or the time is over.
    """
    return harness.apart(fn, *args, limit=max(self.left, 1))

  def try_rows(self, part: str, what: Row, fn: Callable[[], list[Row]], seconds: float) -> None:
    """Add the rows of a function, or one row with the reason for their absence.

    Args:
      part: The part.
      what: The first columns of that row.
      fn: Returns the rows.
      seconds: The time that it needs.
    """
    if not self.fits(part, what, seconds):
      return
    try:
      rows = fn()
    except Exception as error:
      rows = [what | {'verdict': f'FAILED: {(str(error).splitlines() or [repr(error)])[0][:160]}'}]
    self.add(part, rows)


def numbers(bench: Bench) -> None:
  """Compare kernels and models with the CPU, and time the kernels."""
  steps: list[tuple[str, tuple[Any, ...], int]] = [
    ('bfloat16', (gpu_numbers.kernels, 'bfloat16', bench.tiny), 60),
    ('float32', (gpu_numbers.kernels, 'float32', bench.tiny), 45),
    ('models', (gpu_numbers.models, bench.tiny), 45),
  ]
  for name, args, seconds in steps:
    run = lambda args=args: bench.apart(rows_of, *args)
    bench.try_rows('numbers', {'check': name, 'case': 'all'}, run, seconds)
  run = lambda: bench.apart(rows_of, gpu_numbers.preferred, bench.tiny)
  bench.try_rows('kernels', {'shape': 'all', 'kernel': 'all'}, run, 30)


def timed(bench: Bench, rivals: dict[str, tuple[Any, ...]], rounds: int) -> dict[str, Any]:
  """Return the seconds of each rival's calls, timed in turns, or the error of one that failed.

  Args:
    bench: The bench.
    rivals: name -> (function that returns the call, arguments).
    rounds: The number of timed calls.

  Returns:
    Lists of seconds, or texts.
  """
  started: dict[str, harness.OwnProcess] = {}
  found: dict[str, Any] = {}
  try:
    for name, call in rivals.items():
      try:
        started[name] = harness.OwnProcess(*call, limit=max(bench.left, 1))
        started[name]()  # compiles
      except Exception as error:
        found[name] = (str(error).splitlines() or [repr(error)])[0][:160]
    ready = {name: process for name, process in started.items() if name not in found}
    return found | harness.alternate(ready, rounds)
  finally:
    for process in started.values():
      process.close()


def compared(name: str, seconds: dict[str, Any], units: float, base: str) -> list[Row]:
  """Return a row for each rival.

  Args:
    name: The model and shape.
    seconds: From `timed`.
    units: Tokens of a call.
    base: The rival that the others are compared with.

  Returns:
    The rows.
  """
  rows, slow = [], seconds.get(base)
  for rival, times in seconds.items():
    row = {'model': name, 'rival': rival, 'tokens/s': '', 'ratio': ''}
    if isinstance(times, str):
      rows.append(row | {'verdict': f'FAILED: {times}'})
      continue
    speed = units / statistics.median(times)
    is_slow = isinstance(slow, list) and rival != base
    ratio = f'{harness.ratio(slow, times):.2f}' if is_slow else ''
    rows.append(row | {'tokens/s': f'{speed:,.0f}', 'ratio': ratio, 'verdict': ''})
  return rows


def train(bench: Bench) -> None:
  """Time training steps next to PyTorch."""
  peak, steps = bench.found['machine'].get('peak'), 1 if bench.tiny else 5
  for name in list(TRAINED)[: 1 if bench.tiny else None]:
    x = experiment(name, bench.tiny, 'auto')
    tokens = x.data.batch * x.data.length
    flops = 3 * flops_per_token(x.model, x.data.length)

    def measure(name: str = name, tokens: int = tokens, flops: float = flops) -> list[Row]:
      rivals: dict[str, tuple[Any, ...]] = {
        f'tfm {loop}': (tfm_train, name, bench.tiny, 'auto', loop, steps)
        for loop in ('scan', 'unroll')
      }
      if has('torch'):
        rivals['torch.compile'] = (torch_train, name, bench.tiny, True, steps)
      seconds = timed(bench, rivals, 2 if bench.tiny else 5)
      rows = compared(name, seconds, steps * tokens, 'torch.compile')
      for row in rows:
        speed = float(row['tokens/s'].replace(',', '') or 0)
        row['MFU'] = f'{speed * flops / peak:.1%}' if peak else ''
      return rows + missing('torch', {'model': name, 'rival': 'torch.compile'})

    bench.try_rows('train', {'model': name, 'rival': 'all'}, measure, 110)


def decode(bench: Bench) -> None:
  """Time decoding next to `transformers`."""
  name, context, new = 'llama3.2-1b', *((8, 4) if bench.tiny else (128, 128))
  for batch in (1, 2) if bench.tiny else (1, 8, 64):

    def measure(batch: int = batch) -> list[Row]:
      rivals = {'tfm': (tfm_decode, name, bench.tiny, batch, context, new)}
      if has('transformers'):
        rivals['static cache'] = (torch_decode, name, bench.tiny, batch, context, new)
      seconds = timed(bench, rivals, 2 if bench.tiny else 3)
      rows = compared(f'{name}, batch {batch}', seconds, batch * new, 'static cache')
      return rows + missing('transformers', {'model': f'{name}, batch {batch}', 'rival': 'static'})

    bench.try_rows('decode', {'model': f'{name}, batch {batch}', 'rival': 'all'}, measure, 60)


def memory(bench: Bench) -> None:
  """Compare the peak memory of training with the prediction of `tfm plan`.

  The plan of a machine without a GPU cannot compile cuDNN, so both use `blockwise`.
  """
  kind = bench.found['machine'].get('device', '')
  topology = next((t for name, t in TOPOLOGIES.items() if name in kind), 'cpu')
  for name in list(TRAINED)[: 1 if bench.tiny else None]:

    def measure(name: str = name) -> list[Row]:
      measured = bench.apart(peak_bytes, name, bench.tiny, 'blockwise')
      predicted = predict(name, bench.tiny, f'{topology}:1', max(bench.left, 1))
      row = {'model': name, 'predicted': f'{predicted / 1e9:.3f} GB', 'measured': '', 'ratio': ''}
      if measured is None:
        return [row | {'verdict': 'the device reports no memory'}]
      ratio = predicted / measured
      verdict = 'ok' if 0.9 <= ratio <= 1.1 else 'WRONG'
      shown = {'measured': f'{measured / 1e9:.3f} GB', 'ratio': f'{ratio:.3f}'}
      return [row | shown | {'verdict': verdict}]

    bench.try_rows('memory', {'model': name}, measure, 60)


def predict(name: str, tiny: bool, topology: str, seconds: float) -> int:
  """Return the peak memory that `tfm plan` predicts for a training step.

  Args:
    name: The model.
    tiny: Whether it is shrunk.
    topology: The topology.
    seconds: The time limit.

  Returns:
    Bytes.

  Raises:
    RuntimeError: The plan failed.
  """
  here = str(Path(__file__).parent)
  args = [here, name, 'tiny' if tiny else 'whole', 'blockwise', topology]
  for platform in ('cpu', None):  # some CUDA plugins do not load with JAX_PLATFORMS=cpu
    env = {n: v for n, v in os.environ.items() if n != 'JAX_PLATFORMS'}
    env |= {'JAX_PLATFORMS': platform} if platform else {}
    command = [sys.executable, '-c', PREDICT, *args]
    done = subprocess.run(
      command, env=env, capture_output=True, text=True, timeout=seconds, check=False
    )
    if not done.returncode:
      return int(json.loads(done.stdout.splitlines()[-1])['peak'])
  raise RuntimeError(f'plan: {(done.stderr.splitlines() or ["no output"])[-1]}')


def has(module: str) -> bool:
  """Return whether a module is installed."""
  return importlib.util.find_spec(module) is not None


def missing(module: str, what: Row) -> list[Row]:
  """Return the row of a skipped rival, or none if its module is installed."""
  return [] if has(module) else [what | {'verdict': f'skipped: {module} is not installed'}]


def sheet(part: str, rows: list[Row]) -> Sheet:
  """Return the table of a part."""
  columns = list(dict.fromkeys(name for row in rows for name in row))
  columns.sort(key=lambda name: name == 'verdict')
  cells = tuple(tuple(str(row.get(name, '')) for name in columns) for row in rows)
  return Sheet(part, tuple(columns), cells)


def main(argv: list[str] | None = None) -> int:
  """Measure and print the tables; return 1 if a number is wrong or something failed."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--parts', default=','.join(PARTS), help=f'some of {", ".join(PARTS)}')
  parser.add_argument('--minutes', type=float, default=8, help='the time budget')
  parser.add_argument('--tiny', action='store_true', help='small sizes, also on a CPU')
  parser.add_argument('--out', default='gpu.json', help='the file of the numbers')
  args = parser.parse_args(argv)
  parts = args.parts.split(',')
  if unknown := [part for part in parts if part not in PARTS]:
    parser.error(f'--parts: unknown part {unknown[0]!r}. Expected some of {", ".join(PARTS)}.')
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')  # rivals share the GPU
  bench = Bench(Path(args.out), 60 * args.minutes, args.tiny)
  bench.found['machine'] = harness.apart(describe, limit=120)
  bench.save()
  for part in parts:
    {'numbers': numbers, 'train': train, 'decode': decode, 'memory': memory}[part](bench)
  console = Console()
  for part, rows in bench.found['parts'].items():
    console.print(sheet(part, rows).rich(console.width))
  console.print(f'{bench.found["machine"]}; numbers: {args.out}')
  everything = [row for rows in bench.found['parts'].values() for row in rows]
  return int(any(row.get('verdict', '').startswith(('WRONG', 'FAILED')) for row in everything))


if __name__ == '__main__':
  sys.exit(main())
