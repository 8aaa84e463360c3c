"""The large group leaves cases of every test to each run; ids of cases are `key=value` pairs."""

import collections
import dataclasses
import pathlib

import pytest

from tests import groups, ids
from tfm.parts.mask import Causal, Window

#: Folders with `key=value` ids, a pair for each argument.
FOLDERS = ('contracts', 'parts')


def _cases(request):
  """Return the cases of each parametrised test, by its name."""
  if request.config.option.keyword or any('::' in arg for arg in request.config.args):
    pytest.skip('only some cases were collected')
  cases = collections.defaultdict(list)
  for item in request.session.items:
    if hasattr(item, 'callspec'):
      cases[item.nodeid.split('[')[0]].append(item)
  return cases


def test_when_selects_a_proper_subset_of_cases(request):
  for name, items in _cases(request).items():
    marks = getattr(items[0].function, 'pytestmark', ())
    if any(mark.name == 'large' and 'when' in mark.kwargs for mark in marks):
      assert len({groups.is_large(item) for item in items}) == 2, name


def test_ids_are_pairs_of_key_and_value(request):
  for name, items in _cases(request).items():
    if pathlib.Path(name).parts[1] in FOLDERS:
      for item in items:
        assert '=' in item.callspec.id.split('-')[0], item.nodeid


@dataclasses.dataclass(frozen=True)
class Long:
  text: str = ''


@pytest.mark.parametrize(
  ('value', 'expected'),
  [
    ('rope', 'x=rope'),
    (None, 'x=None'),
    ((4, 1), 'x=(4,1)'),
    (Causal(), 'x=Causal()'),
    (Window(3, step=2), 'x=Window(size=3,step=2)'),
    (pathlib.Path('a/b.ipynb'), 'x=b'),
    (Window, 'x=Window'),
    (len, 'x=len'),
    (lambda: 0, 'x=function'),
    (Long('a' * 99), 'x=Long'),
  ],
)
def test_id_of_a_value(value, expected):
  assert ids.case_id('x', value) == expected
