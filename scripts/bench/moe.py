"""Measure a dropless mixture of experts next to a dense layer of equal active FLOPs.

    python scripts/bench/moe.py    # k of E experts for E = 8, 32
    python scripts/bench/moe.py --experts=8 --rows=1024 --rounds=3
    python scripts/bench/moe.py --ragged    # jax.lax.ragged_dot too

A step is forward and backward (gradients of x and of every parameter) of one feed-forward layer.
The dense layer is k times as wide as an expert, so the difference is the cost of routing and
sorting.
"""

import argparse
from collections.abc import Callable
import statistics
from typing import Any

import harness
import jax
import jax.numpy as jnp
import numpy as np

from tfm.parts import grouped, init
from tfm.parts.context import Ctx, Dims, Run
from tfm.parts.cpu import grouped as cpu
from tfm.parts.ffn import FFN, Glu, Moe
from tfm.parts.router import TopK
from tfm.parts.tokeninfo import TokenInfo


def step(ffn: FFN, rows: int, d_model: int, ragged: bool = False) -> Callable[[], Any]:
  """Return a call that runs one step of a feed-forward.

  Args:
    ffn: the feed-forward.
    rows: number of tokens.
    d_model: width of a token.
    ragged: whether experts use `jax.lax.ragged_dot`.

  Returns:
    A function that runs the step.
  """
  if ragged:
    cpu.product, cpu.input_gradient = grouped._ragged_product, grouped._ragged_input_gradient
    cpu.weight_gradient = grouped._ragged_weight_gradient
  module = ffn.make(Dims(d_model, 1, init.FanIn(), Run()))
  ones_BT = jnp.ones((1, rows), jnp.int32)
  ctx = Ctx(TokenInfo(ones_BT, ones_BT))
  rng = np.random.default_rng(0)
  x_BTD, g_BTD = (jnp.asarray(rng.normal(size=(1, rows, d_model)), jnp.float32) for _ in range(2))
  params = jax.jit(module.init)(jax.random.key(0), x_BTD, ctx)

  def loss(params: Any, x_BTD: jax.Array) -> jax.Array:
    y_BTD, aux = module.apply(params, x_BTD, ctx)
    return jnp.sum(y_BTD * g_BTD) + aux

  run = jax.jit(jax.grad(loss, (0, 1)))
  return lambda: jax.block_until_ready(run(params, x_BTD))


def main() -> None:
  """Measure and print the table."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--rows', type=int, default=4096)
  parser.add_argument('--d_model', type=int, default=512)
  parser.add_argument('--d_ff', type=int, default=1024, help='of one expert')
  parser.add_argument('--experts', default='8,32')
  parser.add_argument('--k', type=int, default=2)
  parser.add_argument('--ragged', action='store_true', help='also with jax.lax.ragged_dot')
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--out', help='write the numbers as JSON to this file')
  args = parser.parse_args()
  dense = Glu(args.k * args.d_ff)
  rivals = {f'dense, {dense.d_ff} wide': harness.OwnProcess(step, dense, args.rows, args.d_model)}
  for E in map(int, args.experts.split(',')):
    moe = Moe(E, TopK(k=args.k), Glu(args.d_ff))
    rivals[f'{args.k} of {E} experts'] = harness.OwnProcess(step, moe, args.rows, args.d_model)
    if args.ragged:
      rivals[f'{args.k} of {E}, ragged_dot'] = harness.OwnProcess(
        step, moe, args.rows, args.d_model, True
      )
  peak = harness.matmul_gflops()
  seconds = harness.alternate(rivals, args.rounds, warm=2)
  flops = 3 * args.rows * dense.flops(args.d_model)
  base = next(iter(seconds.values()))
  rows = []
  for name, times in seconds.items():
    median = statistics.median(times)
    rows.append({
      'layer': name, 'ms': 1e3 * median, 'best ms': 1e3 * min(times),
      'GFLOP/s': flops / median / 1e9,
      'of matmul peak': flops / median / 1e9 / peak, 'times dense': harness.ratio(times, base),
    })  # fmt: skip
  title = (
    f'a feed-forward step, {args.rows} tokens of {args.d_model}, experts {args.d_ff} wide, float32'
  )
  harness.report(
    title, rows, args.out, {'matmul peak, GFLOP/s': peak, 'active FLOPs a step': flops}
  )


if __name__ == '__main__':
  main()
