"""Prefix sharing: sequences with a common prefix share its blocks of a paged cache.

Samples of a prompt, its beams, and prompts with a common prefix write new tokens only
(arXiv:2309.06180). All blocks are assigned before decoding starts.
"""

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
from tfm.model.cache import has_state
from tfm.model.spec import Model
from tfm.parts.cache.base import Cache


@struct.dataclass
class Expansion:
  """The mapping from distinct prompts to the sequences that continue them.

  Attributes:
    prompt_B: The prompt of each sequence.
    source: For each block of the pool, the block of the prompts' cache that it is copied from.
      Blocks without tokens have an arbitrary source.
    table: The block table of the sequences, `[B, blocks per sequence]`.
  """

  prompt_B: jax.Array
  source: jax.Array
  table: jax.Array


@dataclasses.dataclass(frozen=True)
class PrefixLayout:
  """The batch of distinct prompts, and how sequences share their blocks.

  Attributes:
    batch: The distinct prompts.
    expansion: The mapping from them to sequences.
    blocks: The number of blocks that all sequences use together.
  """

  batch: Batch
  expansion: Expansion
  blocks: int


def prefix_layout(
  spec: Model, kind: Cache, batch: Batch, beams: int, new: int
) -> PrefixLayout | None:
  """Return how sequences share the blocks of their prompts, or None.

  Sequences of one prompt share all of its full blocks. Sequences of different prompts share the
  full blocks of their common prefix, if the cache of a token does not depend on later tokens. The
  pool has the size that the cache specifies, or enough blocks for any batch of these bucketed
  shapes with this much in common. During the prefill, each distinct prompt has its blocks in
  addition to the pool.

  Args:
    spec: The model.
    kind: The cache; only a paged one has blocks.
    batch: The prompts.
    beams: Sequences per prompt.
    new: New tokens per sequence.

  Returns:
    The layout, or None if nothing can be shared.

  Raises:
    UserError: if the cache specifies too few blocks.
  """
  if kind.block is None or not has_state(spec, 'token'):
    return None
  block = kind.block
  which, first = _distinct(batch)
  prompt_B = np.repeat(which, beams)
  tokens = [row[row >= 0] for row in batch.prompt[first]]
  # In an encoder or a prefix LM, the cache of a token depends on the whole prompt.
  shared = [(i, 0) for i in range(len(tokens))]
  if spec.encoder is None and not spec.reads_prefix:
    shared = _common_prefixes(tokens, block)
  saved = sum(common for _, common in shared) // block
  if len(first) == len(prompt_B) and not saved and kind.blocks is None:
    return None
  width, sequence_blocks = -(-batch.prompt.shape[1] // block), -(-batch.slots // block)
  new_blocks = -(-batch.new_slots // block) + 1
  enough = min(len(first) * width + len(prompt_B) * new_blocks, len(prompt_B) * sequence_blocks)
  pool = kind.blocks or enough - _round_down(saved)
  allocator = BlockAllocator(max(enough, pool), block)
  source, sequences = _allocate(allocator, tokens, shared, prompt_B, width, new)
  # No block was freed since the first allocation, so the used ones are the first.
  used = allocator.blocks - allocator.n_free
  if used > pool:
    raise errors.UserError(
      f'generate: cache={config.text_of(kind)} has too few blocks: {len(prompt_B)} sequences of '
      f'{new} new tokens need {used}. '
      f'Expected blocks of at least {used}, fewer sequences, or fewer tokens.'
    )
  table = allocator.table(sequences, sequence_blocks)
  expansion = Expansion(*map(jnp.asarray, (prompt_B.astype(np.int32), source[:pool], table)))
  inputs = {name: a[first] for name, a in batch.inputs.items()}
  distinct = dataclasses.replace(batch, inputs=inputs, prompt=batch.prompt[first])
  return PrefixLayout(distinct, expansion, used)


def _distinct(batch: Batch) -> tuple[list[int], NDArray[np.intp]]:
  """Return (the distinct prompt of each example, the first example of each distinct prompt)."""
  known = dict[tuple[bytes, ...], int]()
  columns = [map(np.ndarray.tobytes, a) for a in (*batch.inputs.values(), batch.prompt)]
  which = [known.setdefault(example, len(known)) for example in zip(*columns, strict=True)]
  return which, np.unique(which, return_index=True)[1]


def _allocate(
  allocator: BlockAllocator,
  tokens: Sequence[NDArray[np.int32]],
  shared: Sequence[tuple[int, int]],
  prompt_B: NDArray[np.int_],
  width: int,
  new: int,
) -> tuple[NDArray[np.int32], list[int]]:
  """Return (the source of each block, the sequences in the allocator).

  A source is an index into the prompts' cache, in which each prompt has `width` blocks.
  """
  block = allocator.block
  source, prompts = np.zeros(allocator.blocks, np.int32), list[int]()
  for i, (other, common) in enumerate(shared):
    sequence = allocator.fork(prompts[other]) if common else allocator.new()
    allocator.truncate(sequence, common)
    allocator.grow(sequence, len(tokens[i]) - common)
    blocks = slice(common // block, -(-len(tokens[i]) // block))
    own = allocator.table([sequence], width)[0, blocks]
    source[own] = i * width + common // block + np.arange(len(own))
    prompts.append(sequence)
  forks = [allocator.fork(prompts[i]) for i in prompt_B]
  for sequence in prompts:
    allocator.release(sequence)
  for sequence in forks:
    for old, copy in allocator.grow(sequence, new):
      source[copy] = source[old]
  return source, forks


def _common_prefixes(prompts: Sequence[NDArray[np.int32]], block: int) -> list[tuple[int, int]]:
  """Return for each prompt an earlier one with the longest common prefix, in full blocks.

  The elements are (index of the other prompt, number of common tokens), (own index, 0) if none.
  """
  # A prefix of full blocks is identified by the first prompt that has it, and its length.
  firsts, found = dict[tuple[int, int, bytes], int](), list[tuple[int, int]]()
  for i, tokens in enumerate(prompts):
    owner, shared = -1, (i, 0)
    for n in range(block, len(tokens) + 1, block):
      owner = firsts.setdefault((owner, n, tokens[n - block : n].tobytes()), i)
      shared = shared if owner == i else (owner, n)
    found.append(shared)
  return found


def _round_down(n: int) -> int:
  """Return the largest of 0, 1, 2, 3, 4, 6, 8, 12, ... up to n, for few compiled sizes."""
  size = (1 << n.bit_length()) >> 1
  return max(size, size * 3 // 2 * (size * 3 // 2 <= n))
