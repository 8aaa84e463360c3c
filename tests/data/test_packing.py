"""The four ways in which documents fill sequences."""

import typing

import numpy as np
import pytest

from tfm.core import config
from tfm.core.config import from_json, to_json
from tfm.data import Data, Text
from tfm.data.layout import Packing, layout
from tfm.data.store import Split

PLANS = typing.get_args(Packing)
LENGTHS = (3, 9, 1, 14, 5, 5, 22, 2, 7)


def _rows(plan, window, overlap):
  """Return all sequences of documents with distinct tokens, each with an end token before it."""
  starts = overlap + np.cumsum([0, *LENGTHS])
  split = Split(np.arange(100, 100 + starts[-1], dtype=np.uint16), starts, 0)
  plan = layout(plan, split, window, overlap)
  index = np.arange(plan.eval_size)
  return plan, plan.sequences(index, np.zeros_like(index))


@pytest.mark.parametrize('packing', PLANS)
@pytest.mark.parametrize('window', [6, 8, 30])
def test_every_token_is_a_label_exactly_once(packing, window):
  _, rows = _rows(packing, window, 1)
  same = (rows.segments[:, 1:] == rows.segments[:, :-1]) & (rows.segments[:, 1:] > 0)
  assert sorted(rows.tokens[:, 1:][same].tolist()) == list(range(101, 101 + sum(LENGTHS)))


@pytest.mark.parametrize('packing', PLANS)
def test_every_token_is_an_input_exactly_once_without_overlap(packing):
  _, rows = _rows(packing, 8, 0)
  assert sorted(rows.tokens[rows.segments > 0].tolist()) == list(range(100, 100 + sum(LENGTHS)))


@pytest.mark.parametrize('packing', PLANS[1:])
def test_segments_are_documents_with_positions_from_zero(packing):
  _, rows = _rows(packing, 8, 1)
  document = np.searchsorted(101 + np.cumsum(LENGTHS), rows.tokens, 'right')
  for row in range(len(rows.tokens)):
    for segment in range(1, rows.segments[row].max() + 1):
      inside = rows.segments[row] == segment
      assert rows.positions[row][inside].tolist() == list(range(inside.sum()))
      assert len(set(document[row][inside][1:])) <= 1  # the first may be the end token before it
      assert (np.diff(rows.tokens[row][inside]) == 1).all()


def test_one_document_a_sequence_has_one_segment():
  _, rows = _rows('none', 8, 1)
  assert rows.segments.max() == 1
  assert len(rows.tokens) == sum(-(-n // 7) for n in LENGTHS)


@pytest.mark.parametrize('packing', PLANS)
def test_efficiency_is_the_share_of_tokens_that_are_not_padding(packing):
  plan, _ = _rows(packing, 8, 1)
  index = np.arange(plan.train_size)
  rows = plan.sequences(index, np.zeros_like(index))
  assert plan.filled == pytest.approx((rows.segments > 0).mean())


def test_segmented_windows_are_full_at_every_phase():
  plan, _ = _rows('stream_segments', 8, 1)
  index = np.arange(plan.train_size)
  assert plan.phases > 1
  for phase in (0, plan.phases - 1):
    assert plan.sequences(index, np.full_like(index, phase)).segments.all()


def test_run_reports_the_efficiency_of_packing(data):
  for packing, least in (('best_fit', 0.9), ('none', 0.2)):
    corpus = config.override(data, 'packing', packing).corpus(65, overlap=1)
    assert least < corpus.packing_efficiency < 1
    (note,) = corpus.notes
    share = f'{corpus.packing_efficiency:.1%} of the tokens of its sequences are text'
    assert note == f'data: packing {packing}: {share}, the rest is padding.'
  assert not data.corpus(65, overlap=1).notes


def test_isolate_of_stored_configs_and_flags_still_packs():
  old = to_json(Text(files='a'))
  del old['packing']
  assert from_json(Data, old).packed == 'stream'
  assert from_json(Data, old | {'isolate': True}).packed == 'best_fit'
  assert config.override(Text(files='a'), 'isolate', 'true').isolated
  both = Text(files='a', isolate=True, packing='none')
  assert list(both.check()) == [
    'isolate: is true, and packing is none. Expected only packing, as in packing=best_fit.'
  ]
