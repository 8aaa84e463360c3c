"""The choice of models in which every two parts occur together."""

import itertools

from tests.contracts import cases, levels
from tests.contracts.covering import covering

LEVELS = {'a': [1, 2, 3], 'b': ['x', 'y'], 'c': [3, 0, 1, 2], 'd': [True, False]}


def met(rows, a, b):
  return {(row[a], row[b]) for row in rows if None not in (row[a], row[b])}


def test_choices_cover_every_pair():
  rows = covering(LEVELS)
  for a, b in itertools.combinations(LEVELS, 2):
    assert met(rows, a, b) == set(itertools.product(LEVELS[a], LEVELS[b]))
  assert len(rows) < 3 * 2 * 4 * 2 / 2


def test_excluded_pairs_never_meet_and_all_others_do():
  rows = covering(
    LEVELS, lambda a, b: (a, b) == (('a', 1), ('b', 'x')) or (a[0], a[1], b[0]) == ('b', 'y', 'd')
  )
  assert met(rows, 'a', 'b') == {(1, 'y'), *itertools.product((2, 3), 'xy')}
  assert {row['d'] for row in rows if row['b'] == 'y'} == {None}
  assert met(rows, 'b', 'd') == {('x', True), ('x', False)}
  assert met(rows, 'a', 'c') == set(itertools.product(LEVELS['a'], LEVELS['c']))


def test_expensive_levels_are_kept_separate():
  expensive = {('a', 3), ('b', 'y'), ('c', 0)}
  rows = covering(LEVELS, cost=lambda level: float(level in expensive))
  for a, b in itertools.combinations(LEVELS, 2):
    assert met(rows, a, b) == set(itertools.product(LEVELS[a], LEVELS[b]))
  together = lambda rows: sum(len(expensive & set(row.items())) == 3 for row in rows)
  assert together(rows) == 0
  assert together(covering(LEVELS)) > 0


def test_every_part_of_a_model_occurs_in_a_pair():
  values = set().union(*(cases.field_values(case.spec) for case in cases.pairs().values()))
  parts = {kind for _, _, kind in values}
  # Parts of the run, and parts that test_inputs_and_heads.py or tests/parts cover.
  elsewhere = ('attend', 'cache', 'init', 'embed', 'head', 'resample', 'rounding', 'quantize')
  known = levels.tables()
  rows = {
    row
    for kind in known
    if kind not in elsewhere
    for name, row in known[kind].items()
    if name not in levels.OF_IMAGES
  }
  # Attention combines every mask with `Segments`, and `cases.variants` has `Borrowed`.
  assert {row.__name__ for row in rows if not levels.is_conditioned(row)} - {
    'Segments',
    'Borrowed',
  } <= parts
