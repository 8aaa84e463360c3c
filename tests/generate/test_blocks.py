"""BlockAllocator are handed out, shared and given back so that nobody writes what another reads,
and none is ever lost.
"""

import collections

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

from tfm.core.errors import UserError
from tfm.generate.block_allocator import BlockAllocator

ACTS = st.lists(
  st.tuples(
    st.sampled_from(['row', 'grow', 'grow', 'grow', 'fork', 'cut', 'release']), st.integers(0, 99)
  ),
  max_size=60,
)


def ceil(n, block):
  return -(-n // block)


@settings(max_examples=150, deadline=None)
@given(acts=ACTS, block=st.integers(1, 5), pool=st.integers(1, 24))
def test_rows_read_what_they_wrote_whatever_their_forks_do_and_every_block_comes_back(
  acts, block, pool
):
  blocks = BlockAllocator(pool, block)
  written: dict[int, list] = {}  # what each row should read
  slots: dict[tuple[int, int], object] = {}  # what is in the pool
  for step, (act, number) in enumerate(acts):
    rows = list(written)
    row = rows[number % len(rows)] if rows else None
    if act == 'row' or row is None:
      written[blocks.row()] = []
    elif act == 'fork':
      written[blocks.fork(row)] = list(written[row])
    elif act == 'cut':
      keep = number % (len(written[row]) + 1)
      blocks.cut(row, keep)
      del written[row][keep:]
    elif act == 'release':
      blocks.release(row)
      del written[row]
    else:
      _grow(blocks, row, number % 7, written, slots, step)
    _consistent(blocks, written, slots)
  for row in list(written):
    blocks.release(row)
  assert blocks.free == pool


def _grow(blocks, row, more, written, slots, step):
  before = blocks.free, blocks.table([row], blocks.blocks).tolist()
  try:
    copies = blocks.grow(row, more)
  except UserError:
    assert (blocks.free, blocks.table([row], blocks.blocks).tolist()) == before
    return
  assert len(copies) <= 1
  for source, target in copies:
    for i in range(blocks.block):
      slots[target, i] = slots.get((source, i))
  table = blocks.table([row], blocks.blocks)[0].tolist()
  for n in range(len(written[row]), len(written[row]) + more):
    slots[table[n // blocks.block], n % blocks.block] = (row, step, n)
    written[row].append((row, step, n))


def _consistent(blocks, written, slots):
  readers = collections.Counter()
  for row, tokens in written.items():
    own = [b for b in blocks.table([row], blocks.blocks)[0].tolist() if b < blocks.blocks]
    assert len(own) == len(set(own)) == ceil(len(tokens), blocks.block)
    assert blocks.length(row) == len(tokens)
    assert [slots[own[n // blocks.block], n % blocks.block] for n in range(len(tokens))] == tokens
    readers.update(own)
  assert blocks.free == blocks.blocks - len(readers)


@pytest.mark.parametrize('prompt', [16, 21, 31])
def test_samples_of_one_prompt_share_its_whole_blocks_and_copy_at_most_the_last(prompt):
  block, n = 8, 5
  blocks = BlockAllocator(40, block)
  first = blocks.row()
  blocks.grow(first, prompt)
  rows = [first, *(blocks.fork(first) for _ in range(n - 1))]
  assert 40 - blocks.free == ceil(prompt, block)
  copies = [copy for row in rows for copy in blocks.grow(row, 1)]
  # The last to write has the block for itself; a prompt that fills its blocks leaves nothing to
  # copy.
  assert len(copies) == (n - 1 if prompt % block else 0)
  assert 40 - blocks.free == (
    ceil(prompt, block) + n - 1 if prompt % block else prompt // block + n
  )
  assert len(set(blocks.table(rows, 5)[:, prompt // block].tolist())) == n


def test_a_pool_that_is_too_small_says_by_how_much():
  blocks = BlockAllocator(3, 4)
  blocks.grow(blocks.row(), 8)
  message = r'blocks: 5 more tokens need 2 more blocks of 4, 1 of 3 are free. Expected rows released first, or a larger pool.'
  with pytest.raises(UserError, match=message):
    blocks.grow(blocks.row(), 5)
