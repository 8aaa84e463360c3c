"""What prompts have in common rows hold once, and they say what rows with blocks of their own say."""

import functools

from hypothesis import given, settings
from hypothesis import strategies as st
import jax
import numpy as np
import pytest

from tests.generate.models import MODELS, weights
from tfm.core.errors import UserError
from tfm.generate import ModelDraft, decode, prefix_sharing, step
from tfm.parts.cache import DenseCache, Int8Cache, PagedCache
from tfm.parts.context import Run

SPEC = MODELS['rope_gqa']
PROMPT = [5, 9, 2, 7, 1, 1, 30, 22, 8, 4, 17, 3, 3, 41, 6, 12, 9, 50]
LONG = [*PROMPT, *PROMPT, 2]
# Some are the same, some begin alike, some end within what others begin with.
MIXED = [LONG, [7, 1], PROMPT[:8], LONG[:18], [*PROMPT[:10], 60, 60], LONG, [7, 1]]
NEW, BLOCK = 6, 4
PAGED = Run(cache=PagedCache(BLOCK))
say = functools.partial(
  decode.generate, SPEC, weights(SPEC), max_new_tokens=NEW, key=jax.random.key(4)
)


def ceil(n):
  return -(-n // BLOCK)


def planned(prompts, beams=1, kind=PAGED.cache, spec=SPEC, **options):
  chosen = decode.options_lib.parse({'max_new_tokens': NEW} | options)
  return prefix_sharing.prefix_layout(
    spec, kind, decode.prompts_lib.batch(spec, prompts, None, chosen), beams, NEW
  )


def wanted(prompts, beams=1):
  """Full blocks that differ in a token of theirs or before, and for each row those of all its other
  tokens.
  """
  full = {tuple(p[:n]) for p in prompts for n in range(BLOCK, len(p) + 1, BLOCK)}
  return len(full) + beams * sum(ceil(len(p) + NEW) - len(p) // BLOCK for p in prompts)


@pytest.fixture(scope='module')
def plainly():
  return say(MIXED, run=Run())


@pytest.fixture
def passes(monkeypatch):
  """The bytes of each cache that is decoded with, and how many prompts were read for it."""
  found = []
  prefill = decode_loop.prefill

  def heard(spec, params, begin, *args, **kwargs):
    state = prefill(spec, params, begin, *args, **kwargs)
    found.append(
      (
        len(begin.inputs['input_ids']),
        sum(a.nbytes for a in jax.tree.leaves(state.cache['layers'])),
      )
    )
    return state

  monkeypatch.setattr(step, 'prefill', heard)
  return found


def test_samples_of_a_prompt_hold_it_once_and_say_what_they_said(passes):
  prompts = [LONG] * len(MIXED)
  plain = say(prompts, run=Run())
  assert len({tuple(row) for row in plain}) > 4
  assert say(prompts, run=PAGED) == plain
  # The prompt's whole blocks are there once; of its last one, which is not full, each row has its
  # own.
  assert (
    planned(prompts).blocks
    == wanted(prompts)
    == len(LONG) // BLOCK + 7 * ceil(len(LONG) % BLOCK + NEW)
    == 23
  )
  assert 7 * ceil(len(LONG) + NEW) == 77
  (read, dense), (read_once, shared) = passes
  assert (read, read_once) == (7, 1)
  assert shared < 0.5 * dense


def test_rows_of_a_batch_may_be_alike_or_begin_alike(plainly, passes):
  assert say(MIXED, run=PAGED) == plainly
  assert say(MIXED, run=Run(cache=Int8Cache(PagedCache(BLOCK)))) == say(
    MIXED, run=Run(cache=Int8Cache())
  )
  assert [read for read, _ in passes] == [5, 5, 7]
  assert planned(MIXED).blocks == wanted(MIXED) == (9 + 1) + 7 * 2


def test_a_pool_is_smaller_by_most_of_what_prompts_have_in_common():
  apart = planned([[i, *LONG] for i in range(7)], kind=PagedCache(BLOCK, 99))
  alike = planned([[*LONG, i] for i in range(7)])
  assert apart.blocks - alike.blocks == 6 * 9
  # Few sizes are compiled for, so not all of the 54 blocks that are spared.
  assert len(planned([LONG] * 2 + [[i, *LONG] for i in range(6)]).expansion.origin) == 7 * 12 + 8 * (
    4 + 1
  )
  assert (
    len(planned([LONG] * 2 + [[*LONG, i] for i in range(6)]).expansion.origin)
    == 7 * 12 + 8 * (4 + 1) - 48
  )
  assert planned([[i, *LONG] for i in range(7)]) is None
  assert planned([LONG] * 2, kind=DenseCache()) is None


# Few blocks, so that rows are alike here and there; with what is left over.
PIECES = st.lists(st.sampled_from([(1, 1, 1, 1), (1, 1, 1, 2), (2, 2, 2, 2)]), max_size=4).map(
  lambda p: sum(p, ())
)
ROWS = st.lists(
  st.tuples(PIECES, st.lists(st.integers(1, 2), min_size=1, max_size=3)), min_size=1, max_size=6
)


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, beams=st.integers(1, 3))
def test_rows_find_their_prompts_in_blocks_that_no_other_writes(rows, beams):
  prompts = [[*pieces, *rest] for pieces, rest in rows]
  plan = planned(prompts, beams, PagedCache(BLOCK, 200))
  each, origin, table = (np.asarray(a) for a in (plan.expansion.each, plan.expansion.origin, plan.expansion.table))
  assert plan.blocks == wanted(prompts, beams)
  read = [[t for t in row.tolist() if t >= 0] for row in plan.batch.prompt]
  assert len(read) == len({tuple(p) for p in prompts})
  width, readers = ceil(plan.batch.prompt.shape[1]), np.bincount(table[table < 200])
  for i, (row, own) in enumerate(zip(each, table, strict=True)):
    prompt = prompts[i // beams]
    assert read[row] == prompt
    n = ceil(len(prompt) + NEW)
    np.testing.assert_array_equal(own < 200, np.arange(len(own)) < n)
    for at, block in enumerate(own[: ceil(len(prompt))]):
      source, column = divmod(origin[block], width)
      until = min(len(prompt), (at + 1) * BLOCK)
      assert (column, read[source][:until]) == (at, prompt[:until])
    assert (readers[own[len(prompt) // BLOCK : n]] == 1).all()


def test_what_depends_on_a_whole_prompt_is_shared_by_the_same_prompts_only():
  prompts = [PROMPT, PROMPT[:9], PROMPT]
  assert planned(prompts).blocks == wanted(prompts) == 4 + 2 * 2 + 2
  assert planned(prompts, spec=MODELS['prefix']).blocks == 4 + 2 * 2 + 2 + 2
  assert planned(prompts[:2], spec=MODELS['prefix']) is None


def test_beams_share_the_blocks_of_their_prompt():
  spec, prompts = MODELS['encdec'], [PROMPT, [7, 1, 8, 8], PROMPT]
  options = {'beams': 3, 'temperature': 0, 'max_new_tokens': 8, 'decoder_start': (0, 4, 4, 4, 4)}
  here = functools.partial(decode.generate, spec, weights(spec), prompts, **options)
  assert here(run=PAGED) == here(run=Run())
  # Three beams each of three prompts of which two are alike: nine rows, two prompts of which each
  # fills a block with what an encoder makes differ.
  plan = planned(prompts, 3, spec=spec, decoder_start=options['decoder_start'])
  assert plan.blocks == 2 + 9 * 2


@pytest.mark.large
def test_drafts_and_prompt_files_do_not_mind(tmp_path, passes):
  draft = ModelDraft(MODELS['alibi_mqa'], weights(MODELS['alibi_mqa']))
  prompts = [PROMPT] * 3 + [[*PROMPT, 4, 4], [8, 8]]
  here = functools.partial(say, prompts, draft=draft, temperature=0)
  plain, file = here(run=Run()), tmp_path / 'prompt'
  assert [here(run=PAGED, prompt_cache=file) for _ in range(2)] == [plain] * 2
  assert [read for read, _ in passes] == [5, 3, 3]


def test_a_pool_of_so_many_blocks_holds_as_many_rows_as_fit(plainly):
  least = wanted(MIXED)
  assert say(MIXED, run=Run(cache=PagedCache(BLOCK, least))) == plainly
  message = (
    rf'generate: cache=paged\(block=4, blocks={least - 1}\) has too few blocks: 7 rows of 6 new '
    rf'tokens take {least}. '
    rf'Expected blocks of at least {least}, fewer rows, or fewer tokens'
  )
  with pytest.raises(UserError, match=message):
    say(MIXED, run=Run(cache=PagedCache(BLOCK, least - 1)))
