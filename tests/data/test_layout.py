import itertools

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from tfm.data.layout import Packed, Stream, pack, split_documents
from tfm.data.store import Split


def _split(lengths, before=0):
  """Return documents of these lengths, of increasing tokens from 100, after `before` end tokens."""
  starts = before + np.cumsum([0, *lengths])
  return Split(np.arange(100, 100 + starts[-1], dtype=np.uint16), starts, 0)


@hypothesis.given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.integers(40, 64))
@hypothesis.settings(max_examples=60, deadline=None)
def test_packing_places_each_piece_once_within_the_length(lengths, window):
  length = np.array(lengths)
  order, first = pack(length, window)
  assert sorted(order.tolist()) == list(range(len(lengths)))
  filled = [length[order[a:b]].sum() for a, b in itertools.pairwise(first)]
  assert all(0 < n <= window for n in filled)
  # Best fit never leaves two sequences half empty.
  assert sum(n <= window // 2 for n in filled) <= 1


@hypothesis.given(
  st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(2, 20), st.integers(0, 1)
)
@hypothesis.settings(max_examples=60, deadline=None)
def test_packing_keeps_every_token_exactly_once(lengths, window, overlap):
  packed = Packed(_split(lengths, before=overlap), window, overlap)
  rows = packed.sequences(np.arange(packed.train_size), np.zeros(packed.train_size, np.int64))
  if overlap:  # a token is kept if it is predicted: not the end token before the first document
    same = (rows.segments[:, 1:] == rows.segments[:, :-1]) & (rows.segments[:, 1:] > 0)
    kept, first = rows.tokens[:, 1:][same], 101
  else:
    kept, first = rows.tokens[rows.segments > 0], 100
  assert sorted(kept.tolist()) == list(range(first, 100 + overlap + sum(lengths)))


def test_packed_documents_with_a_begin_token_start_with_it():
  packed = Packed(_split([3, 2]), 6, 1)
  rows = packed.sequences(np.array([0]), np.array([0]))
  assert rows.tokens.tolist() == [[100, 101, 102, 103, 104, 0]]
  assert rows.segments.tolist() == [[1, 1, 1, 2, 2, 0]]


def test_packing_numbers_documents_and_restarts_positions():
  packed = Packed(_split([3, 2]), 6, 0)
  rows = packed.sequences(np.array([0]), np.array([0]))
  assert rows.tokens.tolist() == [[100, 101, 102, 103, 104, 0]]
  assert rows.segments.tolist() == [[1, 1, 1, 2, 2, 0]]
  assert rows.positions.tolist() == [[0, 1, 2, 0, 1, 0]]


def test_long_document_is_cut_into_pieces_that_overlap():
  start, length = split_documents(np.array([0, 10]), 4, 1)
  assert start.tolist() == [0, 3, 6]
  assert length.tolist() == [4, 4, 4]


@pytest.mark.parametrize('overlap', [0, 1])
@pytest.mark.parametrize('n', [5, 16, 17, 33, 100])
def test_stream_evaluation_has_every_token_once(n, overlap):
  stream = Stream(_split([n]), 8, overlap)
  rows = stream.sequences(np.arange(stream.eval_size), np.zeros(stream.eval_size, np.int64))
  kept = rows.tokens[:, overlap:][rows.segments[:, overlap:] > 0]
  assert kept.tolist() == list(range(100 + overlap, 100 + n))


@pytest.mark.parametrize('n', [8, 9, 15, 16, 23, 100])
def test_stream_training_sequences_are_full_at_every_phase(n):
  stream = Stream(_split([n]), 8, 1)
  for phase in (0, stream.phases - 1):
    rows = stream.sequences(np.arange(stream.train_size), np.full(stream.train_size, phase))
    assert rows.segments.all()


def test_short_text_has_no_training_sequences():
  assert Stream(_split([5]), 8, 1).train_size < 1
