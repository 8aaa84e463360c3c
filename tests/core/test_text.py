from collections.abc import Mapping
import dataclasses
import math
from typing import Any, Literal

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

from tfm.core.config import parse, text_of
from tfm.core.errors import ConfigError

from . import trees
from .kinds import NORMS, Alibi, Given, Limits, Mesh, Norm, Relative, Rope, Run

QUICK = settings(max_examples=50, deadline=None)
SCALARS = {
  int: st.integers(),
  float: st.floats(allow_nan=False),
  bool: st.booleans(),
  str: st.text(),
  int | None: st.none() | st.integers(),
  float | int | bool: st.booleans() | st.integers() | st.floats(allow_nan=False),
  Literal['a', 3, None, True]: st.sampled_from(['a', 3, None, True]),
}
# Inside a tuple or a union strings are quoted where they would be taken for something else.
NESTED = {
  int | str | None: st.none() | st.integers() | st.text(),
  tuple[int, ...]: st.lists(st.integers()).map(tuple),
  tuple[str, ...]: st.lists(st.text()).map(tuple),
  tuple[str | None, ...] | None: st.none() | st.lists(st.none() | st.text()).map(tuple),
  tuple[int, str]: st.tuples(st.integers(), st.text()),
  tuple[tuple[str, ...], ...]: st.lists(st.lists(st.text()).map(tuple)).map(tuple),
  Mapping[str, str | int]: st.dictionaries(st.text(), st.text() | st.integers()),
}


@pytest.mark.parametrize('want', SCALARS, ids=str)
def test_scalars_round_trip_through_text(want):
  @QUICK
  @given(SCALARS[want])
  def check(value):
    back = parse(want, text_of(value))
    assert back == value
    assert type(back) is type(value)

  check()


@pytest.mark.parametrize('want', NESTED, ids=str)
def test_tuples_unions_and_mappings_round_trip_through_text(want):
  @QUICK
  @given(NESTED[want])
  def check(value):
    assert parse(want, text_of(value, inner=True)) == value

  check()


@QUICK
@given(trees.RUNS)
def test_every_config_round_trips_through_text(run):
  assert parse(Run, text_of(run)) == run


@pytest.mark.parametrize(
  ('want', 'text', 'value'),
  [
    (int, '1_000', 1000),
    (int, '1e6', 1_000_000),
    (int, '1.5e3', 1500),
    (int, '1e23', 10**23),
    (int, '-7', -7),
    (float, '3', 3.0),
    (float, '3e-4', 3e-4),
    (float, 'inf', math.inf),
    (bool, 'True', True),
    (bool, 'false', False),
    (str, "it's (so, so)", "it's (so, so)"),
    (str, '12', '12'),
    (str | None, 'None', None),
    (str | None, "'none'", 'none'),
    (int | str, '12', 12),
    (int | str, '"12"', '12'),
    (tuple[int, ...], '1,2', (1, 2)),
    (tuple[int, ...], '(1, 2)', (1, 2)),
    (tuple[int, ...], '[1,]', (1,)),
    (tuple[int, ...], '1', (1,)),
    (tuple[int, ...], '()', ()),
    (tuple[int, ...], '', ()),
    (tuple[int, float], '1, 2', (1, 2.0)),
    (tuple[tuple[int, int], ...], '(1, 2), (3, 4)', ((1, 2), (3, 4))),
    (tuple[str, ...], 'a b.txt, "c,d"', ('a b.txt', 'c,d')),
    (tuple[Relative, ...], 'rope, alibi', (Rope(), Alibi())),
    (Mapping[str, int], 'a=1, b: 2', {'a': 1, 'b': 2}),
    (Literal['bos', None], 'None', None),
    (Relative | None, 'rope', Rope()),
    (Relative | None, 'none', None),
    (float | Relative, '0.5', 0.5),
    (float | Relative, 'rope', Rope()),
    (Mesh, '2x4', Mesh(2, 4)),
    (Limits | None, 'Limits', Limits()),
    (Limits | None, 'Limits(high=2)', Limits(high=2.0)),
    (Relative, 'rope( base=5e5, layout=pairs )', Rope(5e5, 'pairs')),
    (Relative, "given(table_path='a, b')", Given('a, b')),
    (tuple[Relative, ...], 'rope(base=1), alibi()', (Rope(1.0), Alibi())),
    (Any, '(1, none, x)', (1, None, 'x')),
    (tuple, '1, a', (1, 'a')),
  ],
)
def test_text_is_parsed_by_the_declared_type(want, text, value):
  got = parse(want, text)
  assert got == value
  assert type(got) is type(value)


@pytest.mark.parametrize(
  ('want', 'text', 'message'),
  [
    (int, '1.5', "at: is '1.5'. Expected int."),
    (int, '4.0', "at: is '4.0'. Expected int."),
    (int, 'true', "at: is 'true'. Expected int."),
    (int, '1e999999999', "at: is '1e999999999'. Expected int."),
    (int, 'inf', "at: is 'inf'. Expected int."),
    (float, 'fast', "at: is 'fast'. Expected float."),
    (bool, '1', "at: is '1'. Expected bool."),
    (int | None, 'few', "at: is 'few'. Expected int or none."),
    (type(None), '1', "at: is '1'. Expected none."),
    (tuple[int, ...], '1,x', "at.1: is 'x'. Expected int."),
    (tuple[float, float], '1', "at: is '1'. Expected a tuple (float, float)."),
    (Mapping[str, int], 'a', "at: is 'a'. Expected a mapping of str to int."),
    (
      Literal['even', 'odd'],
      'evn',
      "at: unknown value 'evn'. Did you mean 'even'? Known: even, odd.",
    ),
    (
      Relative,
      'rop',
      "at: unknown relative position 'rop'. Did you mean 'rope'? Known: alibi, given, none, rope.",
    ),
    (Relative | None, 'rop', "at: unknown relative position 'rop'. Did you mean 'rope'?"),
    (Relative, 'given', "at: 'given' has no default table_path. Expected given(table_path=...)."),
    (
      float | Relative,
      'rop',
      "at: is 'rop'. Expected float or a relative position. As a part: unknown relative positi",
    ),
    (Rope, 'alibi', "at: is 'alibi'. Expected a Rope."),
    (Mesh, 'wide', "at: is 'wide'. Expected a Mesh."),
    (
      Limits,
      '3',
      "at: is '3'. Expected Limits for default fields, or Limits(field=v",
    ),
    (
      Relative,
      'rope(bass=1)',
      "at=rope: unknown field 'bass'. Did you mean 'base'? Known: base, layout.",
    ),
    (Relative, 'rope(1)', "at: is '1'. Expected rope(field=value)."),
    (Relative, 'rope(base=1, base=2)', 'at=rope: base is given twice. Expected it once.'),
    (Relative, 'rope(base=x)', "at.base: is 'x'. Expected float."),
    (Relative, 'rop(base=1)', "at: unknown relative position 'rop'. Did you mean 'rope'?"),
    (list[int], '3', 'at: cannot be set by a flag, since its type is list[int]'),
  ],
)
def test_text_of_another_type_names_the_expected_type(want, text, message):
  with pytest.raises(ConfigError) as e:
    parse(want, text, 'at')
  assert message in str(e.value)


def test_text_of_a_part_omits_default_fields():
  assert text_of(Rope()) == 'rope'
  assert text_of(Rope(5e5)) == 'rope(base=500000.0)'
  assert text_of(Given('x y')) == "given(table_path='x y')"
  assert text_of((Norm(), Limits(0.5))) == '(layer, Limits(low=0.5))'


def test_text_of_a_part_outside_tables_is_its_class():
  @dataclasses.dataclass(frozen=True)
  class Loose(Norm):
    pass

  assert Loose not in NORMS.values()
  assert text_of(Loose()) == 'Loose'
