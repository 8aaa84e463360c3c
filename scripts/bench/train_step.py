"""A whole training step (forward, backward, AdamW) beside PyTorch eager: the same shapes, the same work, in turns.

    python scripts/bench/train_step.py --model=gpt2             # 124M parameters, batch 4 x 256
    python scripts/bench/train_step.py --model=small            # 2M parameters, batch 16 x 256
    python scripts/bench/train_step.py --model=gpt2 --rivals=scan,unroll   # without PyTorch

Wants the extra `bench` (PyTorch and transformers).
"""

import argparse
import statistics
from typing import Any

import harness
import jax
import numpy as np

from tfm import zoo
from tfm.core import config
from tfm.model import transformer
from tfm.model.count import count_params, flops_per_token
from tfm.model.spec import Block, Model, Segment
from tfm.optim import AdamW
from tfm.optim.schedule import Constant
from tfm.parts.absolute import Learned
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn import Mlp
from tfm.parts.mixer import Attention
from tfm.parts.norm import LayerNorm
from tfm.train import memory
from tfm.train import step as step_lib
from tfm.train.experiment import Experiment


def small() -> Model:
  """GPT-2's block at 2M parameters."""
  block = Block(Attention(5, bias='qkvo'), Mlp(640), LayerNorm())
  return Model(Tokens(2048), 160, (Segment((block,), 6),), Learned(256), LayerNorm())


#: name -> (spec, batch, length)
SIZES = {'gpt2': (lambda: config.override(zoo.get('gpt2'), '..dropout', '0'), 4, 256), 'small': (small, 16, 256)}


def ours(spec: Model, tokens: np.ndarray, loop: str) -> Any:
  """A call that makes one step of ours, in a process that keeps what it frees, as `tfm train` does."""
  memory.keep_freed()
  x = Experiment(spec, optim=AdamW(lr=1e-4, schedule=Constant(), clip=None, decay=0.01, b2=0.999), loop=loop)
  tx = x.optim.make(1000, transformer.param_letters(spec))
  state = [jax.jit(step_lib.make_init(x, tx))(jax.random.key(0))]
  step = jax.jit(step_lib.make_step(x, tx), donate_argnums=0)
  weights = np.ones(tokens[:, 1:].shape, np.float32)
  batch = jax.device_put({'input_ids': tokens[:, :-1], 'labels': tokens[:, 1:], 'weights': weights})

  def call() -> float:
    state[0], metrics = step(state[0], batch)
    return float(metrics['loss_nats'])

  return call


def theirs(spec: Model, tokens: np.ndarray) -> Any:
  """A call that makes one step of `transformers` on PyTorch eager."""
  import torch
  from transformers import GPT2Config, GPT2LMHeadModel

  block = spec.segments[0].pattern[0]
  config = GPT2Config(
    vocab_size=spec.vocab, n_positions=spec.max_positions, n_embd=spec.d_model, n_layer=spec.segments[0].repeats,
    n_head=block.mixer.heads, n_inner=block.ffn.d_ff, attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0,
  )  # fmt: skip
  model = GPT2LMHeadModel(config).train()
  assert sum(p.numel() for p in model.parameters()) == count_params(spec)
  optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01)
  inputs, labels = torch.tensor(tokens[:, :-1]).long(), torch.tensor(tokens[:, 1:]).long()

  def call() -> float:
    optimizer.zero_grad()
    logits = model(inputs).logits
    loss = torch.nn.functional.cross_entropy(logits.view(-1, spec.vocab), labels.reshape(-1))
    loss.backward()
    optimizer.step()
    return loss.item()

  return call


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--model', choices=SIZES, default='gpt2')
  parser.add_argument('--rivals', default='scan,unroll,torch', help='some of scan, unroll, torch')
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--out', help='a file for the numbers as JSON')
  args = parser.parse_args()
  make, batch, length = SIZES[args.model]
  spec = make()
  tokens = np.random.default_rng(0).integers(0, spec.vocab, (batch, length + 1), dtype=np.int32)
  rivals = {
    n: harness.Apart(theirs, spec, tokens) if n == 'torch' else harness.Apart(ours, spec, tokens, n)
    for n in args.rivals.split(',')
  }
  peak = harness.matmul_gflops()
  seconds = harness.alternate(rivals, args.rounds, warm=2)
  flops = 3 * flops_per_token(spec, length) * batch * length
  base = seconds.get('torch')
  rows = []
  for name, times in seconds.items():
    median = statistics.median(times)
    rows.append({
      'step': name if name == 'torch' else f'tfm {name}', 'seconds': median, 'best': min(times),
      'tokens/s': batch * length / median, 'GFLOP/s': flops / median / 1e9,
      'of matmul peak': flops / median / 1e9 / peak,
      'times torch': harness.ratio(base, times) if base else float('nan'),
    })  # fmt: skip
  title = f'training step, {args.model}: {count_params(spec):,} parameters, batch {batch} x {length}, float32, AdamW'
  harness.report(title, rows, args.out, {'matmul peak, GFLOP/s': peak, 'FLOPs a step': flops})


if __name__ == '__main__':
  main()
