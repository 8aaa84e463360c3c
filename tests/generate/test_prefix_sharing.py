"""Sequences share the blocks of common prefixes, and their tokens stay the same."""

import functools

from hypothesis import given, settings
from hypothesis import strategies as st
import jax
import numpy as np
import pytest

from tests.generate.models import MODELS, weights
from tfm.core.errors import UserError
from tfm.generate import ModelDraft, decode, decode_loop, prefix_sharing
from tfm.parts.cache import DenseCache, Int8Cache, PagedCache
from tfm.parts.context import Run

SPEC = MODELS['rope_gqa']
PROMPT = [5, 9, 2, 7, 1, 1, 30, 22, 8, 4, 17, 3, 3, 41, 6, 12, 9, 50]
LONG = [*PROMPT, *PROMPT, 2]
# Some are equal, some share a prefix, and some are prefixes of others.
MIXED = [LONG, [7, 1], PROMPT[:8], LONG[:18], [*PROMPT[:10], 60, 60], LONG, [7, 1]]
NEW, BLOCK = 6, 4
PAGED = Run(cache=PagedCache(BLOCK))
generated = functools.partial(
  decode.generate, SPEC, weights(SPEC), max_new_tokens=NEW, key=jax.random.key(4)
)


def ceil(n):
  return -(-n // BLOCK)


def layout_of(prompts, beams=1, kind=PAGED.cache, spec=SPEC, **options):
  chosen = decode.options_lib.parse({'max_new_tokens': NEW} | options)
  return prefix_sharing.prefix_layout(
    spec, kind, decode.prompts_lib.batch(spec, prompts, None, chosen), beams, NEW
  )


def expected_blocks(prompts, beams=1):
  """Return the number of distinct full prefix blocks, plus the other blocks of each sequence."""
  full = {tuple(p[:n]) for p in prompts for n in range(BLOCK, len(p) + 1, BLOCK)}
  return len(full) + beams * sum(ceil(len(p) + NEW) - len(p) // BLOCK for p in prompts)


@pytest.fixture(scope='module')
def plain_tokens():
  return generated(MIXED, run=Run())


@pytest.fixture
def prefills(monkeypatch):
  """Yield a list with (number of prompts, bytes of the cache) per prefill."""
  found = []
  prefill = decode_loop.prefill

  def record(spec, params, prompts, *args, **kwargs):
    state = prefill(spec, params, prompts, *args, **kwargs)
    size = sum(a.nbytes for a in jax.tree.leaves(state.cache['layers']))
    found.append((len(prompts.inputs['input_ids']), size))
    return state

  monkeypatch.setattr(decode_loop, 'prefill', record)
  return found


def test_samples_share_the_blocks_of_their_prompt(prefills):
  prompts = [LONG] * len(MIXED)
  plain = generated(prompts, run=Run())
  assert len({tuple(row) for row in plain}) > 4
  assert generated(prompts, run=PAGED) == plain
  # Full blocks of the prompt exist once. Each sequence has a copy of the last, partial block.
  assert (
    layout_of(prompts).blocks
    == expected_blocks(prompts)
    == len(LONG) // BLOCK + 7 * ceil(len(LONG) % BLOCK + NEW)
    == 23
  )
  assert 7 * ceil(len(LONG) + NEW) == 77
  (n_dense, dense), (n_shared, shared) = prefills
  assert (n_dense, n_shared) == (7, 1)
  assert shared < 0.5 * dense


def test_equal_prompts_and_common_prefixes_keep_the_tokens(plain_tokens, prefills):
  assert generated(MIXED, run=PAGED) == plain_tokens
  assert generated(MIXED, run=Run(cache=Int8Cache(PagedCache(BLOCK)))) == generated(
    MIXED, run=Run(cache=Int8Cache())
  )
  assert [n for n, _ in prefills] == [5, 5, 7]
  assert layout_of(MIXED).blocks == expected_blocks(MIXED) == (9 + 1) + 7 * 2


def test_common_prefixes_make_the_pool_smaller():
  separate = layout_of([[i, *LONG] for i in range(7)], kind=PagedCache(BLOCK, 99))
  common = layout_of([[*LONG, i] for i in range(7)])
  assert separate.blocks - common.blocks == 6 * 9
  # The saving is rounded down from 54 blocks, so that few sizes are compiled.
  pool = lambda prompts: len(layout_of(prompts).expansion.source)
  assert pool([LONG] * 2 + [[i, *LONG] for i in range(6)]) == 7 * 12 + 8 * (4 + 1)
  assert pool([LONG] * 2 + [[*LONG, i] for i in range(6)]) == 7 * 12 + 8 * (4 + 1) - 48
  assert layout_of([[i, *LONG] for i in range(7)]) is None
  assert layout_of([LONG] * 2, kind=DenseCache()) is None


# Few distinct blocks, so that prompts often share prefixes, with a partial block at the end.
PIECES = st.lists(st.sampled_from([(1, 1, 1, 1), (1, 1, 1, 2), (2, 2, 2, 2)]), max_size=4).map(
  lambda p: sum(p, ())
)
SEQUENCES = st.lists(
  st.tuples(PIECES, st.lists(st.integers(1, 2), min_size=1, max_size=3)), min_size=1, max_size=6
)


@settings(max_examples=60, deadline=None)
@given(sequences=SEQUENCES, beams=st.integers(1, 3))
def test_sequences_read_their_prompts_and_write_private_blocks(sequences, beams):
  prompts = [[*pieces, *rest] for pieces, rest in sequences]
  layout = layout_of(prompts, beams, PagedCache(BLOCK, 200))
  expansion = jax.tree.map(np.asarray, layout.expansion)
  source, table = expansion.source, expansion.table
  assert layout.blocks == expected_blocks(prompts, beams)
  distinct = [row[row >= 0].tolist() for row in layout.batch.prompt]
  assert len(distinct) == len({tuple(p) for p in prompts})
  width, readers = ceil(layout.batch.prompt.shape[1]), np.bincount(table[table < 200])
  for i, (which, own) in enumerate(zip(expansion.prompt_B, table, strict=True)):
    prompt = prompts[i // beams]
    assert distinct[which] == prompt
    n = ceil(len(prompt) + NEW)
    np.testing.assert_array_equal(own < 200, np.arange(len(own)) < n)
    for at, block in enumerate(own[: ceil(len(prompt))]):
      from_prompt, column = divmod(source[block], width)
      until = min(len(prompt), (at + 1) * BLOCK)
      assert (column, distinct[from_prompt][:until]) == (at, prompt[:until])
    assert (readers[own[len(prompt) // BLOCK : n]] == 1).all()


def test_bidirectional_prompts_share_only_if_equal():
  prompts = [PROMPT, PROMPT[:9], PROMPT]
  assert layout_of(prompts).blocks == expected_blocks(prompts) == 4 + 2 * 2 + 2
  assert layout_of(prompts, spec=MODELS['prefix']).blocks == 4 + 2 * 2 + 2 + 2
  assert layout_of(prompts[:2], spec=MODELS['prefix']) is None


def test_beams_share_the_blocks_of_their_prompt():
  spec, prompts = MODELS['encdec'], [PROMPT, [7, 1, 8, 8], PROMPT]
  options = {'beams': 3, 'temperature': 0, 'max_new_tokens': 8, 'decoder_start': (0, 4, 4, 4, 4)}
  run_with = functools.partial(decode.generate, spec, weights(spec), prompts, **options)
  assert run_with(run=PAGED) == run_with(run=Run())
  # Three beams of three prompts, two of them equal: nine sequences and two distinct prompts. The
  # encoder makes their first blocks differ.
  layout = layout_of(prompts, 3, spec=spec, decoder_start=options['decoder_start'])
  assert layout.blocks == 2 + 9 * 2


@pytest.mark.large
def test_drafts_and_prompt_files_keep_the_tokens(tmp_path, prefills):
  draft = ModelDraft(MODELS['alibi_mqa'], weights(MODELS['alibi_mqa']))
  prompts = [PROMPT] * 3 + [[*PROMPT, 4, 4], [8, 8]]
  run_with = functools.partial(generated, prompts, draft=draft, temperature=0)
  plain, file = run_with(run=Run()), tmp_path / 'prompt'
  assert [run_with(run=PAGED, prompt_cache=file) for _ in range(2)] == [plain] * 2
  assert [n for n, _ in prefills] == [5, 3, 3]


def test_pool_size_is_exact_and_too_small_is_an_error(plain_tokens):
  least = expected_blocks(MIXED)
  assert generated(MIXED, run=Run(cache=PagedCache(BLOCK, least))) == plain_tokens
  message = (
    rf'generate: cache=paged\(block=4, blocks={least - 1}\) has too few blocks: 7 sequences of '
    rf'6 new tokens need {least}. '
    rf'Expected blocks of at least {least}, fewer sequences, or fewer tokens'
  )
  with pytest.raises(UserError, match=message):
    generated(MIXED, run=Run(cache=PagedCache(BLOCK, least - 1)))
