"""The block allocator shares blocks, copies them on write, and loses none."""

import collections

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

from tfm.core.errors import UserError
from tfm.generate.block_allocator import BlockAllocator

OPERATIONS = st.lists(
  st.tuples(
    st.sampled_from(['new', 'grow', 'grow', 'grow', 'fork', 'truncate', 'release']),
    st.integers(0, 99),
  ),
  max_size=60,
)


def ceil(n, block):
  return -(-n // block)


@settings(max_examples=150, deadline=None)
@given(operations=OPERATIONS, block=st.integers(1, 5), pool=st.integers(1, 24))
def test_forks_keep_their_tokens_and_all_blocks_are_freed(operations, block, pool):
  blocks = BlockAllocator(pool, block)
  written: dict[int, list] = {}  # the expected tokens of each sequence
  slots: dict[tuple[int, int], object] = {}  # the contents of the pool
  for step, (operation, number) in enumerate(operations):
    sequences = list(written)
    sequence = sequences[number % len(sequences)] if sequences else None
    if operation == 'new' or sequence is None:
      written[blocks.new()] = []
    elif operation == 'fork':
      written[blocks.fork(sequence)] = list(written[sequence])
    elif operation == 'truncate':
      keep = number % (len(written[sequence]) + 1)
      blocks.truncate(sequence, keep)
      del written[sequence][keep:]
    elif operation == 'release':
      blocks.release(sequence)
      del written[sequence]
    else:
      _grow(blocks, sequence, number % 7, written, slots, step)
    _check_consistent(blocks, written, slots)
  for sequence in list(written):
    blocks.release(sequence)
  assert blocks.n_free == pool


def _grow(blocks, sequence, more, written, slots, step):
  before = blocks.n_free, blocks.table([sequence], blocks.blocks).tolist()
  try:
    copies = blocks.grow(sequence, more)
  except UserError:
    assert (blocks.n_free, blocks.table([sequence], blocks.blocks).tolist()) == before
    return
  assert len(copies) <= 1
  for source, target in copies:
    for i in range(blocks.block):
      slots[target, i] = slots.get((source, i))
  table = blocks.table([sequence], blocks.blocks)[0].tolist()
  for n in range(len(written[sequence]), len(written[sequence]) + more):
    slots[table[n // blocks.block], n % blocks.block] = (sequence, step, n)
    written[sequence].append((sequence, step, n))


def _check_consistent(blocks, written, slots):
  references = collections.Counter()
  for sequence, tokens in written.items():
    own = [b for b in blocks.table([sequence], blocks.blocks)[0].tolist() if b < blocks.blocks]
    assert len(own) == len(set(own)) == ceil(len(tokens), blocks.block)
    assert blocks.length(sequence) == len(tokens)
    assert [slots[own[n // blocks.block], n % blocks.block] for n in range(len(tokens))] == tokens
    references.update(own)
  assert blocks.n_free == blocks.blocks - len(references)


@pytest.mark.parametrize('prompt', [16, 21, 31])
def test_samples_of_a_prompt_share_its_full_blocks(prompt):
  block, n = 8, 5
  blocks = BlockAllocator(40, block)
  first = blocks.new()
  blocks.grow(first, prompt)
  sequences = [first, *(blocks.fork(first) for _ in range(n - 1))]
  assert 40 - blocks.n_free == ceil(prompt, block)
  copies = [copy for sequence in sequences for copy in blocks.grow(sequence, 1)]
  # The last sequence to write needs no copy, and a prompt of full blocks needs none at all.
  assert len(copies) == (n - 1 if prompt % block else 0)
  assert 40 - blocks.n_free == (
    ceil(prompt, block) + n - 1 if prompt % block else prompt // block + n
  )
  assert len(set(blocks.table(sequences, 5)[:, prompt // block].tolist())) == n


def test_too_small_pool_is_an_error_with_numbers():
  blocks = BlockAllocator(3, 4)
  blocks.grow(blocks.new(), 8)
  message = (
    r'blocks: 5 more tokens need 2 more blocks of 4 tokens, but 1 of 3 are free. '
    r'Expected finished sequences to be released, or a larger pool.'
  )
  with pytest.raises(UserError, match=message):
    blocks.grow(blocks.new(), 5)
