"""Rows that go on from the same prompt: it is read once, and they share its blocks of a paged cache (arXiv:2309.06180).

Samples of a prompt, and its beams, write new tokens only: who gets which block is known before the first of them.
"""

import dataclasses

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

from tfm.generate.blocks import Blocks
from tfm.generate.prompts import Batch
from tfm.parts.cache.base import Cache


@struct.dataclass
class Fan:
  """From a row a prompt to the rows that go on: the prompt of each, `[B]`, and each one's blocks, `[B, row blocks]`.

  `origin` says for each block of the pool from which block of the prompts it is copied; what nobody has read yet is a
  copy of anything.
  """

  each: jax.Array
  origin: jax.Array
  table: jax.Array


@dataclasses.dataclass(frozen=True)
class Plan:
  """The batch of the prompts that differ, how rows fan out of it, and how many blocks all of them will take."""

  batch: Batch
  fan: Fan
  blocks: int


def plan(kind: Cache, batch: Batch, beams: int, new: int) -> Plan | None:
  """How each prompt is gone on with by `beams` rows of `new` tokens; None where no two rows can share, or none need.

  The pool is as large as rows of this batch's bucket may want, or as the cache says.

  Raises: UserError if it says too few blocks.
  """
  if kind.block is None:
    return None
  block, known = kind.block, dict[tuple[bytes, ...], int]()
  rows = zip(*(map(np.ndarray.tobytes, a) for a in (*batch.inputs.values(), batch.prompt)), strict=True)
  which = [known.setdefault(row, len(known)) for row in rows]
  each = np.repeat(which, beams)
  if len(known) == len(each) and kind.blocks is None:
    return None
  first = np.unique(which, return_index=True)[1]
  width, row_blocks = -(-batch.prompt.shape[1] // block), -(-batch.slots // block)
  enough = min(len(known) * width + len(each) * (-(-batch.room // block) + 1), len(each) * row_blocks)
  blocks = Blocks(kind.blocks or enough, block)
  origin = np.zeros(blocks.blocks, np.int32)
  prompts = [blocks.row() for _ in known]
  for i, row in enumerate(prompts):
    blocks.grow(row, int((batch.prompt[first[i]] >= 0).sum()))
    own = blocks.table([row], width)[0]
    origin[own[own < blocks.blocks]] = i * width + np.flatnonzero(own < blocks.blocks)
  forks = [blocks.fork(prompts[i]) for i in each]
  for row in prompts:
    blocks.release(row)
  for row in forks:
    for source, target in blocks.grow(row, new):
      origin[target] = origin[source]
  fan = Fan(*map(jnp.asarray, (each.astype(np.int32), origin, blocks.table(forks, row_blocks))))
  inputs = {name: a[first] for name, a in batch.inputs.items()}
  return Plan(dataclasses.replace(batch, inputs=inputs, prompt=batch.prompt[first]), fan, blocks.blocks - blocks.free)
