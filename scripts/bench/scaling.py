"""Weak scaling and compilation by depth, from compiled programs. Nothing is run.

    python scripts/bench/scaling.py                    # under two minutes of CPU time
    python scripts/bench/scaling.py --parts=depth --depths=2,32

`axes` compiles a training step for 1, 2, 4 and 8 simulated devices along a mesh axis, with a batch
that grows with the devices. It prints FLOPs, memory traffic and collectives of a device next to
their formulas. `depth` prints the CPU time and size of programs with scanned and unrolled layers.
"""

import argparse
import dataclasses
import os
from pathlib import Path
import time
from typing import Any

os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['XLA_FLAGS'] = '--xla_force_host_platform_device_count=8'

import harness
import jax

from tfm.data.text import Text
from tfm.data.tokenizer import Byte
from tfm.model.spec import Block, Model, Segment
from tfm.optim import AdamW
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn import Mlp
from tfm.parts.mixer import Attention
from tfm.plan import hlo, work
from tfm.train import Experiment
from tfm.train.build import build
from tfm.train.mesh import Mesh

#: Examples of a device, and tokens of an example.
BATCH, LENGTH = 4, 64
AXES = ('data', 'fsdp', 'tensor')


def experiment(width: int, layers: int, devices: int, axis: str, loop: str) -> Experiment:
  """Return a training run of a byte model, with `BATCH` examples a device.

  Args:
    width: The width of the model.
    layers: The number of layers.
    devices: The size of the mesh axis.
    axis: The mesh axis.
    loop: 'scan' or 'unroll'.
  """
  block = Block(Attention(heads=8), Mlp(d_ff=4 * width))
  return Experiment(
    model=Model(Tokens(256), d_model=width, segments=(Segment((block,), layers),)),
    data=Text(tokenizer=Byte(), files='none', length=LENGTH, batch=BATCH * devices),
    optim=AdamW(),
    mesh=dataclasses.replace(Mesh(data=1), **{axis: devices}),
    loop=loop,
  )


def compiled(x: Experiment) -> tuple[jax.stages.Compiled, Any, float]:
  """Return the compiled training step, its functions, and the CPU seconds to compile."""
  built = build(x, jax.devices()[: max(x.mesh.data, x.mesh.fsdp, x.mesh.tensor)])
  start = time.process_time()
  step = built.step.lower(built.shapes, built.batch.shapes).compile()
  return step, built, time.process_time() - start


def formulas(built: Any, x: Experiment, axis: str, n: int) -> dict[str, float]:
  """Return the bytes that a device receives in a step, by kind of collective.

  XLA's CPU compiler has no reduce-scatter. It reduces gradients to every device, twice the bytes.

  Args:
    built: The functions of the run.
    x: The run.
    axis: The mesh axis.
    n: Its size.
  """
  size = sum(p.size * p.dtype.itemsize for p in jax.tree.leaves(built.shapes['params']))
  share = (n - 1) / n
  if axis == 'data':
    return {'all-reduce': 2 * share * size}
  if axis == 'fsdp':  # gathered in the forward and in the backward pass
    return {'all-gather': 2 * share * size, 'all-reduce': 2 * share * size}
  # Each of attention and feed-forward layer adds its output, and the gradient of its input. The
  # table adds the embedding, and the gradient of the input of the logits.
  added = 4 * x.model.segments[0].repeats + 2
  return {'all-reduce': 2 * share * added * x.data.batch * LENGTH * x.model.d_model * 4}


def scaling(width: int, layers: int, sizes: list[int]) -> list[dict[str, Any]]:
  """Return a row for each mesh axis and number of devices."""
  rows: list[dict[str, Any]] = []
  for axis in AXES:
    for n in sizes:
      if n == 1 and axis != AXES[0]:  # the same program
        continue
      x = experiment(width, layers, n, axis, 'scan')
      step, built, _ = compiled(x)
      found = work.measure(hlo.parse(step.as_text()), built.mesh.shape)
      received: dict[str, int] = {}
      for collective in found.collectives:
        received[collective.kind] = received.get(collective.kind, 0) + collective.bytes
      expected = formulas(built, x, axis, n) if n > 1 else {}
      rows.append({
        'axis': axis, 'devices': n, 'MFLOP': found.flops / 1e6,
        'traffic MB': found.hbm_bytes / 1e6,
        'state MB': step.memory_analysis().argument_size_in_bytes / 1e6,
        'received MB': _kinds(received), 'formula MB': _kinds(expected),
      })  # fmt: skip
  return rows


def _kinds(sizes: dict[str, Any]) -> str:
  parts = [f'{kind} {size / 1e6:.3f}' for kind, size in sorted(sizes.items())]
  return ', '.join(parts) or 'none'


def depth(width: int, depths: list[int]) -> list[dict[str, Any]]:
  """Return a row for each depth and loop."""
  rows: list[dict[str, Any]] = []
  for layers in depths:
    for loop in ('scan', 'unroll'):
      step, _, seconds = compiled(experiment(width, layers, 1, 'data', loop))
      text = step.as_text()
      rows.append({
        'loop': loop, 'layers': layers, 'CPU s': seconds,
        'instructions': sum(len(c.instructions) for c in hlo.parse(text).computations.values()),
        'HLO MB': len(text) / 1e6,
      })  # fmt: skip
  return sorted(rows, key=lambda row: row['loop'])


def main() -> None:
  """Compile and print the tables."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--parts', default='axes,depth')
  parser.add_argument('--width', type=int, default=64)
  parser.add_argument('--layers', type=int, default=2)
  parser.add_argument('--sizes', default='1,2,4,8')
  parser.add_argument('--depths', default='2,8,32')
  parser.add_argument('--out', help='write the numbers as JSON to OUT.axes.json and OUT.depth.json')
  args = parser.parse_args()
  parts = args.parts.split(',')
  numbers = lambda text: [int(n) for n in text.split(',')]
  tables: dict[str, list[dict[str, Any]]] = {}
  if 'axes' in parts:
    tables['axes'] = scaling(args.width, args.layers, numbers(args.sizes))
  if 'depth' in parts:
    tables['depth'] = depth(args.width, numbers(args.depths))
  for name, rows in tables.items():
    out = Path(args.out).with_suffix(f'.{name}.json') if args.out else None
    harness.report(f'{name}, width {args.width}', rows, out and str(out))
  print(f'{time.process_time():.0f} s of CPU time')


if __name__ == '__main__':
  main()
