"""Rows that go on from prompts: each is read once, and what rows have in common stands once in a
paged cache (arXiv:2309.06180).

Samples of a prompt, its beams, and prompts that begin alike write new tokens only: who gets which
block is known before the first of them."""

from collections.abc import Sequence
import dataclasses

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from tfm.core import config, errors
from tfm.generate.block_allocator import BlockAllocator
from tfm.generate.prompts import Batch
from tfm.model.cache import keeps
from tfm.model.spec import Model
from tfm.parts.cache.base import Cache


@struct.dataclass
class Fan:
  """From a row a prompt to the rows that go on: the prompt of each, `[B]`, and each one's blocks,
  `[B, row blocks]`.

  `origin` says for each block of the pool from which block of the prompts it is copied; what nobody
  has read yet is a copy of anything."""

  each: jax.Array
  origin: jax.Array
  table: jax.Array


@dataclasses.dataclass(frozen=True)
class PrefixLayout:
  """The batch of the prompts that differ, how rows fan out of it, and how many blocks all of them
  will take.
  """

  batch: Batch
  fan: Fan
  blocks: int


def prefix_layout(
  spec: Model, kind: Cache, batch: Batch, beams: int, new: int
) -> PrefixLayout | None:
  """How each prompt is gone on with by `beams` rows of `new` tokens; None where no two rows can
  share, or none need.

  Rows of one prompt share all of its full blocks, and rows of prompts that begin alike the full
  blocks of what they have in common, if what is cached of a token depends on no later one. The pool
  is as large as the cache says, or as rows of this batch's bucket may want that have so much in
  common.

  *Cost*: while the prompts are read, each that differs has all of its blocks to itself, and beside
  those there is the pool to which they are copied.

  *Raises*: UserError if the cache says too few blocks.
  """
  if kind.block is None or not keeps(spec, 'token'):
    return None
  block, known = kind.block, dict[tuple[bytes, ...], int]()
  rows = zip(
    *(map(np.ndarray.tobytes, a) for a in (*batch.inputs.values(), batch.prompt)), strict=True
  )
  which = [known.setdefault(row, len(known)) for row in rows]
  each = np.repeat(which, beams)
  first = np.unique(which, return_index=True)[1]
  tokens = [row[row >= 0] for row in batch.prompt[first]]
  # What an encoder or a prefix LM says of a token depends on the whole prompt.
  whole = spec.encoder is not None or spec.reads_prefix
  alike = [(i, 0) for i in range(len(tokens))] if whole else _alike(tokens, block)
  spared = sum(common for _, common in alike) // block
  if len(known) == len(each) and not spared and kind.blocks is None:
    return None
  width, row_blocks = -(-batch.prompt.shape[1] // block), -(-batch.slots // block)
  enough = min(
    len(known) * width + len(each) * (-(-batch.room // block) + 1), len(each) * row_blocks
  )
  pool = kind.blocks or enough - _few(spared)
  blocks = BlockAllocator(max(enough, pool), block)
  origin, prompts = np.zeros(blocks.blocks, np.int32), list[int]()
  for i, (other, common) in enumerate(alike):
    row = blocks.fork(prompts[other]) if common else blocks.row()
    blocks.cut(row, common)
    blocks.grow(row, len(tokens[i]) - common)
    own = blocks.table([row], width)[0, common // block : -(-len(tokens[i]) // block)]
    origin[own] = i * width + common // block + np.arange(len(own))
    prompts.append(row)
  forks = [blocks.fork(prompts[i]) for i in each]
  for row in prompts:
    blocks.release(row)
  for row in forks:
    for source, target in blocks.grow(row, new):
      origin[target] = origin[source]
  # None was given back on the way, so those that are taken are the first.
  taken = blocks.blocks - blocks.free
  if taken > pool:
    raise errors.UserError(
      f'generate: cache={config.text_of(kind)} has too few blocks: {len(each)} rows of {new} new '
      f'tokens take {taken}. '
      f'Expected blocks of at least {taken}, fewer rows, or fewer tokens.'
    )
  fan = Fan(
    *map(jnp.asarray, (each.astype(np.int32), origin[:pool], blocks.table(forks, row_blocks)))
  )
  inputs = {name: a[first] for name, a in batch.inputs.items()}
  return PrefixLayout(
    dataclasses.replace(batch, inputs=inputs, prompt=batch.prompt[first]), fan, taken
  )


def _alike(prompts: Sequence[NDArray[np.int32]], block: int) -> list[tuple[int, int]]:
  """For each prompt an earlier one with as many of the same first full blocks as any, and their
  tokens (0: its own).
  """
  # Full blocks from the beginning on are named by the first prompt that has them, and by how many
  # tokens they are.
  firsts, found = dict[tuple[int, int, bytes], int](), list[tuple[int, int]]()
  for i, tokens in enumerate(prompts):
    owner, alike = -1, (i, 0)
    for n in range(block, len(tokens) + 1, block):
      owner = firsts.setdefault((owner, n, tokens[n - block : n].tobytes()), i)
      alike = alike if owner == i else (owner, n)
    found.append(alike)
  return found


def _few(n: int) -> int:
  """The largest of 0, 1, 2, 3, 4, 6, 8, 12, ... up to n, so that few sizes are compiled for."""
  size = (1 << n.bit_length()) >> 1
  return max(size, size * 3 // 2 * (size * 3 // 2 <= n))
