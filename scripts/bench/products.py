"""Measure matrix products with few rows: float32 and int8 weights of tfm, and PyTorch.

    python scripts/bench/products.py    # 1, 8 and 64 rows, the shapes of GPT-2
    python scripts/bench/products.py --rows=1,2,4 --shapes=2048x2048

The weights have the layout of `tfm.generate.prepare`. There are enough weights per shape (about 200
MB in float32) that no cache holds them, and each is read one time. Times are microseconds per
product. The floor is the size of the weights divided by the read bandwidth, which `decode.py`
measures.
"""

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
  """Return the number of weights of a shape."""
  return max(2, round(BYTES / (4 * inputs * outputs)))


def kernels(inputs: int, outputs: int) -> list[np.ndarray]:
  """Return random weights of a shape."""
  rng = np.random.default_rng(0)
  return [rng.standard_normal((inputs, outputs), np.float32) for _ in range(count(inputs, outputs))]


def tfm_call(int8: bool, rows: int, inputs: int, outputs: int) -> Callable[[], Any]:
  """Return a call of all products in tfm.

  Args:
    int8: whether the weights are quantized.
    rows: number of rows of the left matrix.
    inputs: number of rows of a weight.
    outputs: number of columns of a weight.

  Returns:
    A function that computes all products.
  """
  lay = jax.jit(lambda w: quantize(w, 1) if int8 else Rows.of(w, 1))
  weights = [lay(w) for w in kernels(inputs, outputs)]
  x = jnp.asarray(np.random.default_rng(1).standard_normal((rows, inputs), np.float32))

  @jax.jit
  def all_of_them(weights: list[Any], x: jax.Array) -> jax.Array:
    # Each product depends on the one before.
    last = jnp.float32(0)
    for w in weights:
      last = w.contract(x + 1e-9 * last).max()
    return last

  return lambda: all_of_them(weights, x).block_until_ready()


def torch_call(rows: int, inputs: int, outputs: int) -> Callable[[], Any]:
  """Return a call of all products in PyTorch.

  Args:
    rows: number of rows of the left matrix.
    inputs: number of rows of a weight.
    outputs: number of columns of a weight.

  Returns:
    A function that computes all products.
  """
  import torch

  weights = [torch.from_numpy(w.T.copy()) for w in kernels(inputs, outputs)]
  x = torch.from_numpy(np.random.default_rng(1).standard_normal((rows, inputs), np.float32))

  def all_of_them() -> None:
    with torch.inference_mode():
      last = torch.zeros(())
      for w in weights:
        last = torch.nn.functional.linear(x + 1e-9 * last, w).max()

  return all_of_them


def main() -> None:
  """Measure and print the table."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--rows', default='1,8,64')
  parser.add_argument(
    '--shapes', default='768x768,768x2304,768x3072,3072x768,768x50257', help='inputs x outputs'
  )
  parser.add_argument('--rivals', default='float32,int8,torch')
  parser.add_argument('--rounds', type=int, default=9)
  parser.add_argument('--out', help='write the numbers as JSON to this file')
  args = parser.parse_args()
  found = []
  for shape, rows in itertools.product(args.shapes.split(','), map(int, args.rows.split(','))):
    inputs, outputs = map(int, shape.split('x'))
    make = lambda name, at=(rows, inputs, outputs): (
      (torch_call, *at) if name == 'torch' else (tfm_call, name == 'int8', *at)
    )
    rivals = {name: harness.OwnProcess(*make(name)) for name in args.rivals.split(',')}
    seconds = harness.alternate(rivals, args.rounds, warm=2)
    for rival in rivals.values():
      rival.close()
    n = count(inputs, outputs)
    each = {f'{name}, us': 1e6 * statistics.median(times) / n for name, times in seconds.items()}
    rates = {}
    for name, times in seconds.items():
      read = n * inputs * outputs * (1 if name == 'int8' else 4)
      rates[f'{name}, GB/s'] = read / statistics.median(times) / 1e9
    found.append({'inputs x outputs': shape, 'rows': rows, **each, **rates})
  harness.report('products of few rows', found, args.out)


if __name__ == '__main__':
  main()
