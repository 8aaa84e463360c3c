"""Tiny experiments for meshes, their outcome after ten steps, and counts of collectives."""

from collections import Counter
import dataclasses
from pathlib import Path
import re
from typing import Any, NamedTuple

import jax
import numpy as np

from tests.train.tiny import experiment
from tfm.model.spec import Block, Model, Segment, Tower
from tfm.optim import SGD
from tfm.optim.schedule import Constant
from tfm.parts.cross.attention import CrossAttention
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn import Glu, Moe
from tfm.parts.mask import Causal, Mask, Window
from tfm.parts.mixer import Attention
from tfm.parts.relative import ALiBi
from tfm.tasks import SpanCorruption
from tfm.train import Experiment, shard
from tfm.train import step as step_lib
from tfm.train.build import Built, build
from tfm.train.mesh import Mesh

LR = 0.1
_COLLECTIVES = 'all-gather|all-to-all|ragged-all-to-all|collective-permute|reduce-scatter'


class Outcome(NamedTuple):
  """The results of training on a mesh.

  Attributes:
    losses: The loss of each step.
    gradients: The gradients of the first step.
    params: The parameters after the last step.
    state: The state after the last step.
  """

  losses: list[float]
  gradients: Any
  params: Any
  state: Any


def decoder(*blocks: Block, repeats: int = 2) -> Model:
  """Return a decoder of width 32 over bytes."""
  return Model(Tokens(256), d_model=32, segments=(Segment(blocks, repeats),))


def encoder_decoder() -> Model:
  """Return an encoder-decoder of width 32 over 512 tokens."""
  encoder = Tower(segments=(Segment((Block(Attention(4, mask=Mask()), Glu(64)),), 2),))
  block = Block(Attention(4), Glu(64), cross=CrossAttention(4))
  segments = (Segment((block,), 2),)
  return Model(Tokens(512), d_model=32, segments=segments, towers={'encoder': encoder})


_LOCAL = Attention(8, 4, relative=ALiBi(), mask=Causal() & Window(5), sink=True, cap=5.0)
MODELS = {
  'dense': decoder(Block(Attention(8), Glu(64))),
  'gqa': decoder(Block(Attention(8, 2), Glu(64))),
  'moe': decoder(Block(Attention(8, 4), Moe(8, expert=Glu(16)))),
  'capacity': decoder(Block(Attention(8, 4), Moe(8, expert=Glu(16), capacity=1.25))),
  'encoder_decoder': encoder_decoder(),
  'local': decoder(Block(_LOCAL, Glu(64))),
}


def case(folder: Path, name: str, **changes: str) -> Experiment:
  """Return the experiment of a model of `MODELS`, without dropout, on sequences of 16 tokens."""
  sgd = SGD(lr=LR, schedule=Constant(), clip=None)
  x = experiment(folder, **changes)
  x = dataclasses.replace(x, model=MODELS[name], optim=sgd, steps=10)
  if name == 'encoder_decoder':
    x = dataclasses.replace(x, task=SpanCorruption(rate=0.5, span=2.0))
  return dataclasses.replace(x, data=dataclasses.replace(x.data, isolate=name == 'local'))


def features(built: Built) -> dict[str, np.ndarray]:
  """Return random features; sequences with segment ids hold two documents and padding."""
  draw, out = np.random.default_rng(0), {}
  for name, s in built.batch.shapes.items():
    if 'segment' in name or 'position' in name:
      first = draw.integers(3, 8, (s.shape[0], 1))
      index = np.broadcast_to(np.arange(s.shape[1]), s.shape)
      value = np.where(index < first, index, index - first)
      if 'segment' in name:
        value = np.where(index < first, 1, 2) * (index < s.shape[1] - 1)
    elif name == 'weights':
      value = (draw.random(s.shape) < 0.8).astype(np.float32)
    else:
      value = draw.integers(0, 256, s.shape)
    out[name] = value.astype(s.dtype)
  return out


def run(x: Experiment, mesh: Mesh, devices: list[jax.Device], steps: int = 10) -> Outcome:
  """Return the outcome of `steps` steps on one fixed batch; one program is compiled."""
  built = build(dataclasses.replace(x, mesh=mesh), devices)
  state = jax.device_put(initial(x), built.shardings)
  start = jax.tree.map(np.array, state['params'])
  size = x.data.batch
  batch = shard.put(features(built), built.batch.shardings, size, slice(0, size))
  losses, gradients = [], None
  for step in range(steps):
    state, metrics = built.step(state, batch)
    losses.append(float(metrics['loss']))
    if not step:
      gradients = jax.tree.map(lambda a, b: (a - np.asarray(b)) / LR, start, state['params'])
  return Outcome(losses, gradients, jax.tree.map(np.asarray, state['params']), state)


def initial(x: Experiment) -> Any:
  """Return the initial state on the host, the same for every mesh."""
  built = build(dataclasses.replace(x, mesh=Mesh()), jax.devices()[:1])
  return jax.device_get(built.init(step_lib.init_key(0)))


def largest_error(a: Outcome, b: Outcome) -> dict[str, float]:
  """Return the largest absolute difference of losses, gradients and parameters."""
  worst = lambda x, y: max(
    float(np.max(np.abs(p - q))) for p, q in zip(*map(jax.tree.leaves, (x, y)), strict=True)
  )
  return {name: worst(getattr(a, name), getattr(b, name)) for name in Outcome._fields[:3]}


class Collective(NamedTuple):
  """A collective of a compiled program: its name, dtype and the shape of its result."""

  name: str
  dtype: str
  shape: tuple[int, ...]


def collectives(program: str) -> Counter[Collective]:
  """Return the collectives of a compiled program's text, except reductions to every device."""
  found: Counter[Collective] = Counter()
  for line in program.splitlines():
    if (op := re.search(rf' ({_COLLECTIVES})(-start)?\(', line)) is None:
      continue
    for dtype, sizes in re.findall(r'(\w+)\[([\d,]*)\]', line[: op.start()]):
      shape = tuple(int(n) for n in sizes.split(',') if n)
      found[Collective(op[1], dtype, shape)] += 1
  return found


def compiled(x: Experiment, mesh: Mesh) -> str:
  """Return the text of the compiled step on all devices."""
  built = build(dataclasses.replace(x, mesh=mesh), jax.devices())
  text: str = built.step.lower(built.shapes, built.batch.shapes).compile().as_text()
  return text
