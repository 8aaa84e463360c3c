"""Rows that go on from the same prompt hold its blocks once, and say what rows with blocks of their own say."""

import functools

import jax
import numpy as np
import pytest

from generate.models import MODELS, weights
from tfm.core.errors import UserError
from tfm.generate import Smaller, decode, sharing, step
from tfm.parts.cache import DenseCache, Int8Cache, PagedCache
from tfm.parts.context import Run

SPEC = MODELS['rope_gqa']
PROMPT = [5, 9, 2, 7, 1, 1, 30, 22, 8, 4, 17, 3, 3, 41, 6, 12, 9, 50]
NEW, BLOCK = 6, 4
PAGED = Run(cache=PagedCache(BLOCK))
say = functools.partial(decode.generate, SPEC, weights(SPEC), max_new_tokens=NEW, key=jax.random.key(4))


def ceil(n):
  return -(-n // BLOCK)


def planned(prompts, beams=1, kind=PAGED.cache):
  batch = decode.prompts_lib.batch(SPEC, prompts, None, decode.options_lib.parse({'max_new_tokens': NEW}))
  return sharing.plan(kind, batch, beams, NEW)


@pytest.fixture
def passes(monkeypatch):
  """The bytes of each cache that is decoded with, and how many prompts were read for it."""
  found = []
  prefill = step.prefill

  def heard(spec, params, begin, *args, **kwargs):
    state = prefill(spec, params, begin, *args, **kwargs)
    found.append((len(begin.inputs['input_ids']), sum(a.nbytes for a in jax.tree.leaves(state.cache['layers']))))
    return state

  monkeypatch.setattr(step, 'prefill', heard)
  return found


def test_eight_samples_of_a_prompt_hold_it_once_and_say_what_they_said(passes):
  long = [*PROMPT, *PROMPT, 2]
  prompts = [long] * 8
  plain = say(prompts, run=Run())
  assert len({tuple(row) for row in plain}) > 4
  assert say(prompts, run=PAGED) == plain
  # The prompt's whole blocks are there once; of its last one, which is not full, each row has its own.
  assert planned(prompts).blocks == len(long) // BLOCK + 8 * ceil(len(long) % BLOCK + NEW) == 25
  assert 8 * ceil(len(long) + NEW) == 88
  (read, dense), (read_once, shared) = passes
  assert (read, read_once) == (8, 1)
  assert shared < 0.5 * dense


def test_some_rows_of_a_batch_may_be_alike(passes):
  prompts = [PROMPT, [7, 1], PROMPT[:8], PROMPT, [7, 1], PROMPT[:8], [60]]
  plain = say(prompts, run=Run())
  assert say(prompts, run=PAGED) == plain
  assert say(prompts, run=Run(cache=Int8Cache(PagedCache(BLOCK)))) == say(prompts, run=Run(cache=Int8Cache()))
  assert [read for read, _ in passes] == [7, 4, 4, 7]
  assert planned([PROMPT, [7]]) is None
  assert planned([PROMPT] * 2, kind=DenseCache()) is None


def test_beams_share_the_blocks_of_their_prompt():
  spec, prompts = MODELS['encdec'], [PROMPT, [7, 1, 8, 8], PROMPT]
  options = {'beams': 3, 'temperature': 0, 'max_new_tokens': 8, 'decoder_start': (0, 4, 4, 4, 4)}
  here = functools.partial(decode.generate, spec, weights(spec), prompts, **options)
  assert here(run=PAGED) == here(run=Run())
  # Three beams each of three prompts of which two are alike: nine rows, two prompts of which one fills its block.
  assert planned(prompts, 3).blocks == 4 + 6 * 2 + 1 + 3 * 2


def test_drafts_and_prompt_files_do_not_mind(tmp_path, passes):
  draft = Smaller(MODELS['alibi_mqa'], weights(MODELS['alibi_mqa']))
  prompts = [PROMPT] * 3 + [[*PROMPT, 4, 4], [8, 8]]
  here = functools.partial(say, prompts, draft=draft, temperature=0)
  plain, file = here(run=Run()), tmp_path / 'prompt'
  assert [here(run=PAGED, prompt_cache=file) for _ in range(2)] == [plain] * 2
  assert [read for read, _ in passes] == [5, 3, 3]


def test_a_pool_of_so_many_blocks_holds_as_many_rows_as_fit():
  prompts, least = [PROMPT, PROMPT, [7, 1]], planned([PROMPT, PROMPT, [7, 1]]).blocks
  fits = Run(cache=PagedCache(BLOCK, least))
  assert say(prompts, run=fits) == say(prompts, run=Run())
  message = rf'blocks: 6 more tokens need 1 more blocks of 4, 0 of {least - 1} are free'
  with pytest.raises(UserError, match=message):
    say(prompts, run=Run(cache=PagedCache(BLOCK, least - 1)))


def test_what_a_row_writes_its_fellows_do_not_see():
  plan = planned([PROMPT, PROMPT, PROMPT[:8], PROMPT[:8]])
  table = np.asarray(plan.fan.table)
  tables = [{b for b in row if b < len(plan.fan.origin)} for row in table.tolist()]
  for i, (one, row) in enumerate(zip([PROMPT, PROMPT, PROMPT[:8], PROMPT[:8]], table, strict=True)):
    written = set(row[len(one) // BLOCK : ceil(len(one) + NEW)].tolist())
    assert all(not written & other for j, other in enumerate(tables) if j != i)
  assert np.bincount(np.asarray(plan.fan.each)).tolist() == [2, 2]
