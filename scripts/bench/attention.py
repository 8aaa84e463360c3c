r"""Measure time and memory of attention by length, kernel and mask, next to PyTorch's SDPA.

    python scripts/bench/attention.py    # causal, 512 to 4096 tokens
    python scripts/bench/attention.py --lengths=512,1024,2048,4096,8192,16384 \
      --rivals=blockwise,torch
    python scripts/bench/attention.py --masks=causal,strided,fixed,dilated \
      --lengths=2048,8192 --rivals=blockwise

A measurement is one forward and backward pass. Columns: `temp MB` is the temporary memory of the
compiled program; `pairs` is the share of T x T that the mask allows; `of causal` is the time
relative to the same kernel with a causal mask, if that is measured. Needs the extra `bench`
(PyTorch).
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

from tfm.parts.attend import TABLE
from tfm.parts.attend.base import Scores
from tfm.parts.mask import TABLE as MASKS
from tfm.parts.mask import Causal, Mask, Segments, Window
from tfm.parts.tokeninfo import TokenInfo

HEADS, HEAD_DIM = 12, 64


def mask_of(name: str) -> Mask:
  """Return a mask by name.

  `window` is causal over 256 tokens. `dilated` is every 8th of 1,024 keys. Other names are rows of
  the table of masks.
  """
  given = {'window': Causal() & Window(256), 'dilated': Window(128, step=8)}
  return given[name] if name in given else MASKS[name]()


def random_qkv(T: int) -> list[np.ndarray]:
  """Return random queries, keys and values `[1, T, heads, head width]`."""
  rng = np.random.default_rng(0)
  return [rng.standard_normal((1, T, HEADS, HEAD_DIM), np.float32) for _ in range(3)]


def program(kernel: str, mask: str, T: int) -> Any:
  """Return the compiled gradient of sum(y^2) with respect to q, k and v.

  Args:
    kernel: name of the attention kernel.
    mask: name of the mask.
    T: number of tokens.

  Returns:
    The compiled program.
  """
  info = TokenInfo(jnp.arange(T)[None], jnp.ones((1, T), jnp.int32))
  scores = Scores(HEAD_DIM**-0.5, mask_of(mask) & Segments(), ordered=mask_of(mask).causal)
  attend = TABLE[kernel]()
  loss = lambda q, k, v: jnp.square(attend(q, k, v, info, info, scores, 'float32')).sum()
  return jax.jit(jax.grad(loss, (0, 1, 2))).lower(*random_qkv(T)).compile()


def tfm_call(kernel: str, mask: str, T: int) -> Callable[[], Any]:
  """Return a call of tfm's kernel.

  Args:
    kernel: name of the attention kernel.
    mask: name of the mask.
    T: number of tokens.

  Returns:
    A function that runs one step.
  """
  step, x = program(kernel, mask, T), [jnp.asarray(a) for a in random_qkv(T)]
  return lambda: jax.block_until_ready(step(*x))


def torch_call(mask: str, T: int) -> Callable[[], Any]:
  """Return a call of `scaled_dot_product_attention`, fused for the causal mask only."""
  import torch

  x = [torch.tensor(a.swapaxes(1, 2).copy(), requires_grad=True) for a in random_qkv(T)]
  pos = np.arange(T)
  allowed = np.asarray(
    mask_of(mask)(
      *(TokenInfo(jnp.asarray(p), jnp.ones_like(p)) for p in (pos[None, :, None], pos[None, None]))
    )
  )
  given = {'is_causal': True} if mask == 'causal' else {'attn_mask': torch.tensor(allowed)}

  def call() -> None:
    for a in x:
      a.grad = None
    torch.nn.functional.scaled_dot_product_attention(*x, **given).square().sum().backward()

  return call


def main() -> None:
  """Measure and print the table."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--lengths', default='512,1024,2048,4096')
  parser.add_argument(
    '--masks', default='causal', help='window, dilated, or names of masks, with commas'
  )
  parser.add_argument(
    '--rivals', default='dense,blockwise,torch', help='torch, or names of kernels, with commas'
  )
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--out', help='write the numbers as JSON to this file')
  args = parser.parse_args()
  names, masks, rows = args.rivals.split(','), args.masks.split(','), []
  for T in map(int, args.lengths.split(',')):
    rivals = {}
    for mask, name in itertools.product(masks, names):
      call = (torch_call, mask, T) if name == 'torch' else (tfm_call, name, mask, T)
      rivals[name, mask] = harness.OwnProcess(*call)
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
  title = (
    f'attention, forward and backward: 1 sequence, {HEADS} heads of {HEAD_DIM}, float32 '
    '(14 FLOPs per pair and dimension)'
  )
  harness.report(title, rows, args.out)


if __name__ == '__main__':
  main()
