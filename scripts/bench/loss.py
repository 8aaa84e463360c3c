"""Compare the cross-entropy of whole logits with chunks of the vocabulary: time and memory.

    python scripts/bench/loss.py --tokens=2048 --width=768 --vocab=50257 --chunks=0,8192,16384

Each row is the value and the gradients of a float32 loss, of hidden states and a token table.
"""

import argparse
import functools
import statistics

import harness
import jax
import jax.numpy as jnp

from tfm.parts.head.factors import LogitFactors
from tfm.tasks.chunked_xent import chunked_cross_entropy
from tfm.tasks.xent import Target, cross_entropy


def loss(chunk: int, factors: LogitFactors, labels_BT: jax.Array) -> jax.Array:
  """Return the sum of the losses; `chunk` 0 computes whole logits."""
  if not chunk:
    return cross_entropy(factors.logits(), labels_BT).loss.sum()
  return chunked_cross_entropy(factors, labels_BT, Target.of(factors.vocab), chunk).loss.sum()


def main() -> None:
  """Measure and print the table."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--tokens', type=int, default=2048)
  parser.add_argument('--width', type=int, default=768)
  parser.add_argument('--vocab', type=int, default=50_257)
  parser.add_argument('--chunks', default='0,4096,16384')
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--out', help='write the numbers as JSON to this file')
  args = parser.parse_args()
  x, w = (
    jax.random.normal(jax.random.key(i), shape) / args.width**0.5
    for i, shape in enumerate([(1, args.tokens, args.width), (args.vocab, args.width)])
  )
  factors = LogitFactors(x, w, letters='VD')
  labels = jnp.zeros((1, args.tokens), jnp.int32)
  calls, memory = {}, {}
  for chunk in map(int, args.chunks.split(',')):
    step = jax.jit(jax.value_and_grad(functools.partial(loss, chunk)))
    compiled = step.lower(factors, labels).compile()
    memory[chunk] = compiled.memory_analysis().temp_size_in_bytes / 1e6
    calls[chunk] = lambda run=compiled: jax.block_until_ready(run(factors, labels))
  times = harness.alternate(calls, args.rounds)
  first = statistics.median(next(iter(times.values())))
  rows = []
  for chunk, seconds in times.items():
    middle = statistics.median(seconds)
    row = {'chunk': chunk or 'whole', 'seconds': middle, 'to the first': middle / first}
    rows.append(row | {'temporaries (MB)': memory[chunk]})
  title = f'loss: {args.tokens} tokens, width {args.width}, vocabulary {args.vocab}'
  harness.report(title, rows, args.out)


if __name__ == '__main__':
  main()
