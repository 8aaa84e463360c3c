"""Measure a training step (forward, backward, AdamW) next to PyTorch eager, in turns.

    python scripts/bench/train_step.py --model=gpt2     # 124M parameters, batch 4 x 256
    python scripts/bench/train_step.py --model=small    # 2M parameters, batch 16 x 256
    python scripts/bench/train_step.py --model=vit      # ViT-S/16, 16 images of 224 x 224
    python scripts/bench/train_step.py --model=gpt2 --rivals=scan,unroll    # without PyTorch

Both have equal shapes and work. Needs the extra `bench` (PyTorch and transformers).
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
from tfm.tasks import CausalLM, Classify
from tfm.train import memory
from tfm.train import step as step_lib
from tfm.train.experiment import Experiment


def small() -> Model:
  """Return a model with GPT-2's block and 2M parameters."""
  block = Block(Attention(5, bias='qkvo'), Mlp(640), LayerNorm())
  return Model(Tokens(2048), 160, (Segment((block,), 6),), Learned(256), LayerNorm())


#: name -> (spec, batch, length)
SIZES = {
  'gpt2': (lambda: config.override(zoo.get('gpt2'), '..dropout', '0'), 4, 256),
  'small': (small, 16, 256),
  'vit': (lambda: zoo.get('vit-small-16'), 16, 197),
}


def batch_of(spec: Model, rows: int, length: int) -> dict[str, np.ndarray]:
  """Return random inputs, labels and weights of a language model or an image classifier.

  Args:
    spec: spec of the model.
    rows: number of sequences or images.
    length: number of tokens of a sequence.

  Returns:
    The batch, by input name.
  """
  rng = np.random.default_rng(0)
  if spec.vocab:
    tokens = rng.integers(0, spec.vocab, (rows, length + 1), dtype=np.int32)
    return {
      'input_ids': tokens[:, :-1],
      'labels': tokens[:, 1:],
      'weights': np.ones((rows, length), np.float32),
    }
  shape = spec.embed.shapes(rows, length)['pixel_values'].shape
  labels = rng.integers(0, spec.classifier.labels, rows, dtype=np.int32)
  pixels = rng.standard_normal(shape, dtype=np.float32)
  return {'pixel_values': pixels, 'labels': labels, 'weights': np.ones(rows, np.float32)}


def tfm_call(spec: Model, batch: dict[str, np.ndarray], loop: str) -> Any:
  """Return a call that trains tfm for one step, with the memory settings of `tfm train`.

  Args:
    spec: spec of the model.
    batch: inputs, labels and weights.
    loop: `scan` or `unroll`.

  Returns:
    A function that runs a step and returns the loss.
  """
  memory.keep_freed_memory()
  optim = AdamW(lr=1e-4, schedule=Constant(), clip=None, decay=0.01, b2=0.999)
  x = Experiment(spec, task=CausalLM() if spec.vocab else Classify(), optim=optim, loop=loop)
  tx = x.optim.make(1000, transformer.param_letters(spec))
  state = [jax.jit(step_lib.make_init(x, tx))(jax.random.key(0))]
  step = jax.jit(step_lib.make_step(x, tx), donate_argnums=0)
  given = jax.device_put(batch)

  def call() -> float:
    state[0], metrics = step(state[0], given)
    return float(metrics['loss_nats'])

  return call


def torch_call(spec: Model, batch: dict[str, np.ndarray]) -> Any:
  """Return a call that trains `transformers` on PyTorch eager for one step."""
  import torch

  model = (_gpt2 if spec.vocab else _vit)(spec).train()
  assert sum(p.numel() for p in model.parameters()) == count_params(spec)
  optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01)
  name = 'input_ids' if spec.vocab else 'pixel_values'
  inputs, labels = torch.tensor(batch[name]), torch.tensor(batch['labels']).long()
  inputs = inputs.long() if spec.vocab else inputs

  def call() -> float:
    optimizer.zero_grad()
    logits = model(inputs).logits
    loss = torch.nn.functional.cross_entropy(logits.view(-1, logits.shape[-1]), labels.reshape(-1))
    loss.backward()
    optimizer.step()
    return loss.item()

  return call


def _gpt2(spec: Model) -> Any:
  from transformers import GPT2Config, GPT2LMHeadModel

  block = spec.segments[0].pattern[0]
  config = GPT2Config(
    vocab_size=spec.vocab, n_positions=spec.max_positions, n_embd=spec.d_model,
    n_layer=spec.segments[0].repeats,
    n_head=block.mixer.heads, n_inner=block.ffn.d_ff, attn_pdrop=0.0, embd_pdrop=0.0,
    resid_pdrop=0.0,
  )  # fmt: skip
  return GPT2LMHeadModel(config)


def _vit(spec: Model) -> Any:
  from transformers import ViTConfig, ViTForImageClassification

  from tfm import hub

  fields, _ = hub.class_of(spec)
  known = {
    name: value for name, value in fields.items() if name not in ('model_type', 'architectures')
  }
  return ViTForImageClassification(ViTConfig(**known))


def main() -> None:
  """Measure and print the table."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--model', choices=SIZES, default='gpt2')
  parser.add_argument('--rivals', default='scan,unroll,torch', help='some of scan, unroll, torch')
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--out', help='write the numbers as JSON to this file')
  args = parser.parse_args()
  make, batch, length = SIZES[args.model]
  spec = make()
  given = batch_of(spec, batch, length)
  rivals = {}
  for name in args.rivals.split(','):
    call = (torch_call, spec, given) if name == 'torch' else (tfm_call, spec, given, name)
    rivals[name] = harness.OwnProcess(*call)
  peak = harness.matmul_gflops()
  seconds = harness.alternate(rivals, args.rounds, warm=2)
  flops = 3 * flops_per_token(spec, length) * batch * length
  base = seconds.get('torch')
  rows = []
  for name, times in seconds.items():
    median = statistics.median(times)
    speedup = harness.ratio(base, times) if base else float('nan')
    rows.append({
      'step': name if name == 'torch' else f'tfm {name}', 'seconds': median, 'best': min(times),
      'tokens/s': batch * length / median, 'GFLOP/s': flops / median / 1e9,
      'of matmul peak': flops / median / 1e9 / peak,
      'times torch': speedup,
    })  # fmt: skip
  size = f'{count_params(spec):,} parameters, batch {batch} x {length}'
  title = f'training step, {args.model}: {size}, float32, AdamW'
  harness.report(title, rows, args.out, {'matmul peak, GFLOP/s': peak, 'FLOPs per step': flops})


if __name__ == '__main__':
  main()
