"""Loss of quantized training and error of quantized weights: `python -m scripts.bench.quantize`.

Trains a small model for 100 steps with each quantization, then quantizes the weights of the float32
run. Needs qwix.
"""

import dataclasses
import tempfile

import jax
import jax.numpy as jnp
import optax

import tfm
from tfm.data.stdlib import Stdlib
from tfm.data.tokenizer import Byte
from tfm.model.spec import Block, Model, Segment
from tfm.optim import AdamW
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn import Glu
from tfm.parts.mixer import Attention
from tfm.parts.quantize import TABLE
from tfm.train import Experiment
from tfm.train.build import build
from tfm.train.step import init_key

STEPS = 100
TRAINING = {
  'none': TABLE['none'](),
  'int8': TABLE['int8'](),
  'int8, int8 gradients': TABLE['int8'](gradients='int8'),
  'fp8': TABLE['fp8'](),
  'int4': TABLE['int4'](),
}
STORED = {
  'int8': TABLE['int8'](), 'fp8': TABLE['fp8'](), 'int4': TABLE['int4'](),
  'nf4': TABLE['int4'](weights='nf4'), 'int4, tile 128': TABLE['int4'](tile=128),
  'int4, with head and table': TABLE['int4'](skip=()),
}  # fmt: skip


def experiment(folder: str) -> Experiment:
  block = Block(Attention(heads=4), Glu(d_ff=256))
  return Experiment(
    model=Model(embed=Tokens(257), d_model=128, segments=(Segment((block,), 2),)),
    data=Stdlib(tokenizer=Byte(), length=64, batch=16, cache=folder),
    optim=AdamW(lr=3e-3),
    steps=STEPS,
  )


def size(params) -> int:
  """Return the bits of all arrays."""
  bits = {'int4': 4, 'uint4': 4}
  return sum(a.size * bits.get(a.dtype.name, 8 * a.dtype.itemsize) for a in jax.tree.leaves(params))


def main() -> None:
  with tempfile.TemporaryDirectory() as folder:
    x = experiment(folder)
    data = x.data.open(x.task)
    batches = [x.task.features(data.batch('train', x.seed, i), data) for i in range(STEPS)]
    ids = jnp.asarray(x.task.features(data.batch('val', 1, 0), data)['input_ids'])
  trained = {}
  for name, how in TRAINING.items():
    built = build(dataclasses.replace(x, quantize=how), jax.devices()[:1])
    state, losses = built.init(init_key(x.seed)), []
    for batch in batches:
      state, metrics = built.step(state, batch)
      losses.append(float(metrics['loss']))
    trained[name] = state['params']
    print(f'train {name}: loss {losses[0]:.4f} -> {sum(losses[-10:]) / 10:.4f}', flush=True)
  params = trained['none']
  logits = jax.jit(lambda p: tfm.apply(x.model, p, input_ids=ids)['logits'])
  exact = logits(params)
  nll = lambda y: optax.softmax_cross_entropy_with_integer_labels(y[:, :-1], ids[:, 1:]).mean()
  print(f'stored float32: {size(params) // 8:,} bytes, loss {nll(exact):.4f}')
  for name, how in STORED.items():
    small = tfm.quantize(x.model, params, how)
    y = logits(small)
    error = jnp.linalg.norm(y - exact) / jnp.linalg.norm(exact)
    print(f'stored {name}: {size(small) // 8:,} bytes, logit error {error:.4f}, loss {nll(y):.4f}')


if __name__ == '__main__':
  main()
