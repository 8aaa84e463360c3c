"""Greedy decoding of GPT-2 small beside `transformers` on PyTorch: the same weights' shapes, the same tokens to add.

    python scripts/bench/decode.py                        # batch 1, batch 8, and batch 1 with int8 weights
    python scripts/bench/decode.py --batches=1 --rivals=layers,int8 --rounds=9

A step reads every weight once, so its floor is bytes of weights over the read bandwidth, which is measured too.
Wants the extra `bench` (PyTorch and transformers).
"""

import argparse
from collections.abc import Callable
import statistics
from typing import Any

import harness
import jax
import numpy as np

from tfm import zoo
from tfm.generate import generate, prepare
from tfm.model.transformer import init
from tfm.parts.context import Run

PROMPT, NEW = 64, 64


def prompts(batch: int) -> np.ndarray:
  return np.random.default_rng(0).integers(0, zoo.get('gpt2').vocab, (batch, PROMPT), dtype=np.int32)


def weights(layout: str) -> Any:
  """GPT-2 small's parameters as they are trained (stack), a layer at a time (layers), or in bytes (int8)."""
  spec = zoo.get('gpt2')
  params = jax.jit(init, static_argnums=0)(spec, jax.random.key(0))
  return params if layout == 'stack' else prepare(spec, params, int8=layout == 'int8')


def ours(layout: str, batch: int) -> Callable[[], Any]:
  """A call that adds NEW tokens to each row."""
  params, rows, run = weights(layout), prompts(batch).tolist(), Run() if layout == 'stack' else Run(loop='unroll')
  return lambda: generate(zoo.get('gpt2'), params, rows, max_new_tokens=NEW, temperature=0, run=run)


def theirs(batch: int) -> Callable[[], Any]:
  """The same with `transformers` on PyTorch."""
  import torch
  from transformers import GPT2Config, GPT2LMHeadModel

  spec, ids = zoo.get('gpt2'), torch.tensor(prompts(batch)).long()
  torch.manual_seed(0)
  model = GPT2LMHeadModel(GPT2Config(vocab_size=spec.vocab, n_positions=spec.max_positions)).eval()
  model.generation_config.eos_token_id = None

  def call() -> None:
    with torch.inference_mode():
      mask = torch.ones_like(ids)
      out = model.generate(ids, attention_mask=mask, max_new_tokens=NEW, do_sample=False, pad_token_id=0)
    assert out.shape[1] == PROMPT + NEW

  return call


def read_bandwidth() -> float:
  """Bytes a second at which this machine reads numbers it has not in a cache, by whichever reads faster."""
  a = np.ones(1 << 27, np.float32)
  total, x = jax.jit(lambda x: x.sum()), jax.numpy.asarray(a)
  rivals: dict[str, Callable[[], Any]] = {'numpy': lambda: a.sum(), 'jax': lambda: total(x).block_until_ready()}
  try:
    import torch

    t = torch.from_numpy(a)
    rivals['torch'] = lambda: t.sum()
  except ImportError:
    pass
  return a.nbytes / min(min(times) for times in harness.alternate(rivals, 5).values())


def size(layout: str) -> int:
  """Bytes of weights a step reads: all of them but the rows of the position table."""
  spec, layout = zoo.get('gpt2'), 'stack' if layout == 'torch' else layout
  arrays = jax.tree.leaves(jax.eval_shape(lambda: weights(layout)))
  return sum(a.size * a.dtype.itemsize for a in arrays) - (spec.max_positions or 0) * spec.d_model * 4


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--batches', default='1,8')
  parser.add_argument('--rivals', default='torch,layers,int8', help='some of torch, layers, int8, stack')
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--out', help='a file for the numbers as JSON')
  args = parser.parse_args()
  names = args.rivals.split(',')
  bandwidth = read_bandwidth()
  rows = []
  for batch in map(int, args.batches.split(',')):
    rivals = {n: harness.Apart(theirs, batch) if n == 'torch' else harness.Apart(ours, n, batch) for n in names}
    seconds = harness.alternate(rivals, args.rounds, warm=2)
    for rival in rivals.values():
      rival.close()
    base = seconds.get('torch')
    for name, times in seconds.items():
      median = statistics.median(times)
      floor = size(name) / bandwidth
      rows.append({
        'decode': name if name == 'torch' else f'tfm {name}', 'batch': batch, 'tokens/s': batch * NEW / median,
        'best': batch * NEW / min(times), 'ms a step': 1e3 * median / NEW, 'floor, ms': 1e3 * floor,
        'times torch': harness.ratio(base, times) if base else float('nan'),
      })  # fmt: skip
  title = f'greedy decoding, GPT-2 small, {PROMPT} prompt + {NEW} new tokens, float32 (int8: one byte a weight)'
  harness.report(title, rows, args.out, {'read bandwidth, GB/s': bandwidth / 1e9})


if __name__ == '__main__':
  main()
