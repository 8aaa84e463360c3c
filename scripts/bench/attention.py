"""Attention alone, forward and backward: time and memory against length, by kernel and mask, beside
PyTorch's SDPA.

    python scripts/bench/attention.py                                   # causal, 512 to 4096 tokens
    python scripts/bench/attention.py --lengths=512,1024,2048,4096,8192,16384
    --rivals=blockwise,torch python scripts/bench/attention.py --masks=causal,strided,fixed,dilated
    --lengths=2048,8192 --rivals=blockwise

`temp MB` is what XLA's compiler sets aside beside operands and results, `pairs` the share of T x T
in sight, and `of causal` the time by that of the same kernel with the causal mask, where it is
among the masks. Wants the extra `bench` (PyTorch)."""

import argparse
from collections.abc import Callable
import statistics
from typing import Any

import harness
import jax
import jax.numpy as jnp
import numpy as np

from tfm.parts.attend import TABLE
from tfm.parts.attend.base import Scores
from tfm.parts.mask import TABLE as MASKS
from tfm.parts.mask import Causal, Mask, Segments, Window
from tfm.parts.tokeninfo import TokenInfo

HEADS, HEAD_DIM = 12, 64


def mask_of(name: str) -> Mask:
  """A causal window of 256, one of every 8th of 1,024 keys, or a row of the table of masks at its
  defaults.
  """
  given = {'window': Causal() & Window(256), 'dilated': Window(128, step=8)}
  return given[name] if name in given else MASKS[name]()


def drawn(T: int) -> list[np.ndarray]:
  rng = np.random.default_rng(0)
  return [rng.standard_normal((1, T, HEADS, HEAD_DIM), np.float32) for _ in range(3)]


def program(kernel: str, mask: str, T: int) -> Any:
  """The compiled gradient of a sum over y by q, k and v."""
  info = TokenInfo(jnp.arange(T)[None], jnp.ones((1, T), jnp.int32))
  scores = Scores(HEAD_DIM**-0.5, mask_of(mask) & Segments(), ordered=mask_of(mask).causal)
  attend = TABLE[kernel]()
  loss = lambda q, k, v: jnp.square(attend(q, k, v, info, info, scores, 'float32')).sum()
  return jax.jit(jax.grad(loss, (0, 1, 2))).lower(*drawn(T)).compile()


def ours(kernel: str, mask: str, T: int) -> Callable[[], Any]:
  step, x = program(kernel, mask, T), [jnp.asarray(a) for a in drawn(T)]
  return lambda: jax.block_until_ready(step(*x))


def theirs(mask: str, T: int) -> Callable[[], Any]:
  """The same by `torch.nn.functional.scaled_dot_product_attention`: fused for causal, with an array
  for other masks.
  """
  import torch

  x = [torch.tensor(a.swapaxes(1, 2).copy(), requires_grad=True) for a in drawn(T)]
  pos = np.arange(T)
  seen = np.asarray(
    mask_of(mask)(
      *(TokenInfo(jnp.asarray(p), jnp.ones_like(p)) for p in (pos[None, :, None], pos[None, None]))
    )
  )
  given = {'is_causal': True} if mask == 'causal' else {'attn_mask': torch.tensor(seen)}

  def call() -> None:
    for a in x:
      a.grad = None
    torch.nn.functional.scaled_dot_product_attention(*x, **given).square().sum().backward()

  return call


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--lengths', default='512,1024,2048,4096')
  parser.add_argument(
    '--masks', default='causal', help='window (of 256), dilated, or rows of the table of masks'
  )
  parser.add_argument(
    '--rivals', default='dense,blockwise,torch', help='torch, or rows of the table of kernels'
  )
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--out', help='a file for the numbers as JSON')
  args = parser.parse_args()
  names, masks, rows = args.rivals.split(','), args.masks.split(','), []
  for T in map(int, args.lengths.split(',')):
    rivals = {
      (name, mask): harness.Apart(theirs, mask, T)
      if name == 'torch'
      else harness.Apart(ours, name, mask, T)
      for mask in masks
      for name in names
    }
    seconds = harness.alternate(rivals, args.rounds)
    for rival in rivals.values():
      rival.close()

    def against(slow: tuple[str, str], fast: tuple[str, str], seconds: Any = seconds) -> float:
      return (
        harness.ratio(seconds[slow], seconds[fast]) if {slow, fast} <= {*seconds} else float('nan')
      )

    for (name, mask), times in seconds.items():
      temp = (
        None
        if name == 'torch'
        else program(name, mask, T).memory_analysis().temp_size_in_bytes / 1e6
      )
      median, pairs = statistics.median(times), mask_of(mask).pairs(T)
      rows.append({
        'mask': mask, 'length': T, 'pairs': f'{pairs / T**2:.1%}', 'kernel': name,
        'ms': 1e3 * median,
        'GFLOP/s': 14 * pairs * HEADS * HEAD_DIM / median / 1e9,
        'temp MB': temp if temp is not None else '',
        'of causal': against((name, mask), (name, 'causal')),
        'times torch': against(('torch', mask), (name, mask)),
      })  # fmt: skip
  title = f'attention, forward and backward: 1 row, {HEADS} heads of {HEAD_DIM}, float32 (14 FLOPs a pair and number)'
  harness.report(title, rows, args.out)


if __name__ == '__main__':
  main()
