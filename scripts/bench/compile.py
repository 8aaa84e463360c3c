"""Measure the time from a traced function to the end of its first step, by depth and loop.

    python scripts/bench/compile.py --loops=scan,unroll --depths=6,12,24

A scanned loop compiles its layer only one time.
"""

import argparse
import dataclasses
import statistics
import time

import harness
import jax
import numpy as np

from tfm import zoo
from tfm.core import config
from tfm.model import transformer
from tfm.optim import AdamW
from tfm.train import step as step_lib
from tfm.train.experiment import Experiment


def seconds(depth: int, loop: str, width: int) -> tuple[float, float]:
  """Return the compile time and the first step time of a narrow GPT-2.

  Args:
    depth: number of layers.
    loop: `scan` or `unroll`.
    width: width of the model; it is small, so that compilation dominates.

  Returns:
    Seconds to lower and compile, and seconds of the first step.
  """
  spec = config.override(zoo.get('gpt2'), '..dropout', '0')
  spec = dataclasses.replace(
    spec, d_model=width, segments=(dataclasses.replace(spec.segments[0], repeats=depth),)
  )
  spec = config.override(
    config.override(spec, '..head_dim', str(width // 12)), '..d_ff', str(4 * width)
  )
  x = Experiment(spec, optim=AdamW(), loop=loop)
  tx = x.optim.make(100, transformer.param_letters(spec))
  state = jax.jit(step_lib.make_init(x, tx))(jax.random.key(0))
  tokens = np.zeros((2, 64), np.int32)
  batch = {'input_ids': tokens, 'labels': tokens, 'weights': np.ones((2, 64), np.float32)}
  jax.clear_caches()
  start = time.perf_counter()
  step = jax.jit(step_lib.make_step(x, tx), donate_argnums=0).lower(state, batch).compile()
  compiled = time.perf_counter()
  jax.block_until_ready(step(state, batch))
  return compiled - start, time.perf_counter() - compiled


def main() -> None:
  """Measure and print the table."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--loops', default='scan,unroll')
  parser.add_argument('--depths', default='6,12,24')
  parser.add_argument('--width', type=int, default=192)
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--out', help='write the numbers as JSON to this file')
  args = parser.parse_args()
  cases = [(loop, int(depth)) for loop in args.loops.split(',') for depth in args.depths.split(',')]
  found: dict[tuple[str, int], list[float]] = {case: [] for case in cases}
  for _ in range(args.rounds):
    for loop, depth in cases:
      found[loop, depth].append(sum(seconds(depth, loop, args.width)))
  first = {loop: statistics.median(times) for (loop, _), times in reversed(found.items())}
  rows = []
  for (loop, depth), times in found.items():
    middle = statistics.median(times)
    rows.append(
      {
        'loop': loop,
        'layers': depth,
        'seconds to first step': middle,
        'to the fewest': middle / first[loop],
      }
    )
  harness.report(
    f'compile: lower, compile and run one training step, width {args.width}', rows, args.out
  )


if __name__ == '__main__':
  main()
