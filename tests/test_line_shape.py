"""A statement of the library holds at most one comprehension or ternary."""

import ast
import pathlib

import pytest

_ROOT = pathlib.Path(__file__).parents[1]
_FILES = sorted((_ROOT / 'tfm').rglob('*.py'))
_COUNTED = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.IfExp)


def _expressions(statement):
  """Yield the nodes of a statement without those of the statements in its body."""
  for child in ast.iter_child_nodes(statement):
    if not isinstance(child, ast.stmt):
      yield child
      yield from _expressions(child)


def _crowded(source):
  """Return the lines of statements with more than one comprehension or ternary."""
  lines = []
  for node in ast.walk(ast.parse(source)):
    counted = [e for e in _expressions(node) if isinstance(e, _COUNTED)]
    if isinstance(node, ast.stmt) and len(counted) > 1:
      lines.append(node.lineno)
  return lines


@pytest.mark.parametrize(
  'source',
  [
    'x = [[j for j in i] for i in y]',
    'x = 1 if a else 2 if b else 3',
    'x = [1 if i else 2 for i in y]',
    'f = lambda y: [g(i for i in z) for z in y]',
    'for i in [j for j in (k for k in y)]:\n  x = 1',
  ],
)
def test_two_in_a_statement_are_found(source):
  assert _crowded(source) == [1]


def test_header_and_body_are_separate_statements():
  assert _crowded('for i in [j for j in y]:\n  x = [k for k in i]\n  z = 1 if x else 2') == []


def test_statements_hold_at_most_one_comprehension_or_ternary():
  found = {str(f.relative_to(_ROOT)): _crowded(f.read_text()) for f in _FILES}
  assert not {name: lines for name, lines in found.items() if lines}
