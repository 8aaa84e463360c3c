"""Products of few rows with weights as `tfm.generate.prepare` lays them out: float32, one byte a
number, and PyTorch's.

    python scripts/bench/products.py                              # one row, eight and 64, the shapes of GPT-2
    python scripts/bench/products.py --rows=1,2,4 --shapes=2048x2048

So many weights of a shape that no cache holds them (about 200 MB in float32), each read once;
microseconds a product. Its floor is the bytes over the memory's bandwidth, which `decode.py`
measures."""

import argparse
from collections.abc import Callable
import itertools
import statistics
from typing import Any

import harness
import jax
import jax.numpy as jnp
import numpy as np

from tfm.parts.int8 import quantize
from tfm.parts.stored import Rows

BYTES = 200e6


def count(inputs: int, outputs: int) -> int:
  """How many weights of this shape there are."""
  return max(2, round(BYTES / (4 * inputs * outputs)))


def kernels(inputs: int, outputs: int) -> list[np.ndarray]:
  rng = np.random.default_rng(0)
  return [rng.standard_normal((inputs, outputs), np.float32) for _ in range(count(inputs, outputs))]


def ours(int8: bool, rows: int, inputs: int, outputs: int) -> Callable[[], Any]:
  lay = jax.jit(lambda w: quantize(w, 1) if int8 else Rows.of(w, 1))
  weights = [lay(w) for w in kernels(inputs, outputs)]
  x = jnp.asarray(np.random.default_rng(1).standard_normal((rows, inputs), np.float32))

  @jax.jit
  def all_of_them(weights: list[Any], x: jax.Array) -> jax.Array:
    # Each waits for the one before.
    seen = jnp.float32(0)
    for w in weights:
      seen = w.contract(x + 1e-9 * seen).max()
    return seen

  return lambda: all_of_them(weights, x).block_until_ready()


def theirs(rows: int, inputs: int, outputs: int) -> Callable[[], Any]:
  import torch

  weights = [torch.from_numpy(w.T.copy()) for w in kernels(inputs, outputs)]
  x = torch.from_numpy(np.random.default_rng(1).standard_normal((rows, inputs), np.float32))

  def all_of_them() -> None:
    with torch.inference_mode():
      seen = torch.zeros(())
      for w in weights:
        seen = torch.nn.functional.linear(x + 1e-9 * seen, w).max()

  return all_of_them


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--rows', default='1,8,64')
  parser.add_argument(
    '--shapes', default='768x768,768x2304,768x3072,3072x768,768x50257', help='inputs x outputs'
  )
  parser.add_argument('--rivals', default='float32,int8,torch')
  parser.add_argument('--rounds', type=int, default=9)
  parser.add_argument('--out', help='a file for the numbers as JSON')
  args = parser.parse_args()
  found = []
  for shape, rows in itertools.product(args.shapes.split(','), map(int, args.rows.split(','))):
    inputs, outputs = map(int, shape.split('x'))
    make = lambda name, at=(rows, inputs, outputs): (
      (theirs, *at) if name == 'torch' else (ours, name == 'int8', *at)
    )
    rivals = {name: harness.Apart(*make(name)) for name in args.rivals.split(',')}
    seconds = harness.alternate(rivals, args.rounds, warm=2)
    for rival in rivals.values():
      rival.close()
    n = count(inputs, outputs)
    each = {f'{name}, us': 1e6 * statistics.median(times) / n for name, times in seconds.items()}
    rates = {
      f'{name}, GB/s': (1 if name == 'int8' else 4)
      * inputs
      * outputs
      * n
      / statistics.median(times)
      / 1e9
      for name, times in seconds.items()
    }
    found.append({'inputs x outputs': shape, 'rows': rows, **each, **rates})
  harness.report('products of few rows', found, args.out)


if __name__ == '__main__':
  main()
