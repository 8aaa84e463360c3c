"""The choice of models in which every two parts meet."""

import itertools

from tests.contracts import cases
from tests.contracts.covering import covering

LEVELS = {'a': [1, 2, 3], 'b': ['x', 'y'], 'c': [3, 0, 1, 2], 'd': [True, False]}


def met(rows, a, b):
  return {(row[a], row[b]) for row in rows if None not in (row[a], row[b])}


def test_the_chosen_rows_cover_every_pair():
  rows = covering(LEVELS)
  for a, b in itertools.combinations(LEVELS, 2):
    assert met(rows, a, b) == set(itertools.product(LEVELS[a], LEVELS[b]))
  assert len(rows) < 3 * 2 * 4 * 2 / 2


def test_what_is_to_be_kept_apart_never_meets_and_all_else_does():
  rows = covering(
    LEVELS, lambda a, b: (a, b) == (('a', 1), ('b', 'x')) or (a[0], a[1], b[0]) == ('b', 'y', 'd')
  )
  assert met(rows, 'a', 'b') == {(1, 'y'), *itertools.product((2, 3), 'xy')}
  assert {row['d'] for row in rows if row['b'] == 'y'} == {None}
  assert met(rows, 'b', 'd') == {('x', True), ('x', False)}
  assert met(rows, 'a', 'c') == set(itertools.product(LEVELS['a'], LEVELS['c']))


def test_what_is_dear_stands_alone_where_it_can():
  dear = {('a', 3), ('b', 'y'), ('c', 0)}
  rows = covering(LEVELS, dear=lambda level: float(level in dear))
  for a, b in itertools.combinations(LEVELS, 2):
    assert met(rows, a, b) == set(itertools.product(LEVELS[a], LEVELS[b]))
  together = lambda rows: sum(len(dear & set(row.items())) == 3 for row in rows)
  assert together(rows) == 0
  assert together(covering(LEVELS)) > 0


def test_every_row_of_every_table_of_a_model_stands_in_some_pair():
  said = set().union(*(cases._said(case.spec) for case in cases.pairs().values()))
  parts = {kind for _, _, kind in said}
  # Of the run, or in test_inputs_and_heads.py, or in tests/parts.
  elsewhere = ('attend', 'cache', 'init', 'embed', 'head', 'resample')
  known = cases.tables()
  rows = {
    row
    for kind in known
    if kind not in elsewhere
    for name, row in known[kind].items()
    if name not in cases.OF_IMAGES
  }
  # `Segments` is joined to every mask by attention itself.
  assert {row.__name__ for row in rows if not cases.is_conditioned(row)} - {'Segments'} <= parts
