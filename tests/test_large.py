"""The large group leaves something of each test to every run, and names no test that is gone."""

import pathlib
import re

import large
import pytest


@pytest.mark.parametrize('file', large.CASES)
def test_a_group_of_cases_is_some_of_a_test_and_not_all_of_it(file, request):
  if request.config.option.keyword:
    pytest.skip('only some cases were collected')
  text = (pathlib.Path(__file__).parents[1] / file).read_text('utf-8')
  for test, ids in large.CASES[file].items():
    assert f'def {test}(' in text, test
    started = f'{file}::{test}['
    cases = [item.callspec.id for item in request.session.items if item.nodeid.startswith(started)]
    left_out = [case for case in cases if re.fullmatch(ids, case)]
    assert not cases or 0 < len(left_out) < len(cases), test
