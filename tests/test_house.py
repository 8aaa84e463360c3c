"""Rules of the source tree: imports, file sizes, tables of parts, parameter paths."""

import ast
import importlib
import json
import pathlib

import jax
import pytest

from tfm import zoo
from tfm.core.registry import Part, Table
from tfm.model import transformer

_ROOT = pathlib.Path(__file__).parents[1]
_FILES = sorted((_ROOT / 'tfm').rglob('*.py'))
_GOLDEN = pathlib.Path(__file__).parent / 'golden' / 'parameters.json'

#: What each room may import, itself left out; cli is above all of them.
_BELOW = {
  'core': set(),
  'formal': set(),
  'parts': {'core'},
  'model': {'parts', 'core'},
  'zoo': {'model', 'parts', 'core'},
  'data': {'core'},
  'tasks': {'data', 'core'},
  'optim': {'core'},
  'train': {'model', 'parts', 'tasks', 'data', 'optim', 'core'},
  'generate': {'model', 'parts', 'data', 'core'},
  'plan': {'train', 'generate', 'model', 'parts', 'tasks', 'data', 'optim', 'core'},
  'hub': {'zoo', 'train', 'generate', 'model', 'parts', 'data', 'core'},
  'evaluate': {'hub', 'train', 'tasks', 'generate', 'model', 'parts', 'data', 'core'},
}


def _room(path):
  return path.relative_to(_ROOT / 'tfm').parts[0]


def _imports(path):
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      yield from (f'{node.module}.{alias.name}' for alias in node.names)


@pytest.mark.parametrize('room', _BELOW)
def test_imports_point_down(room):
  for path in (f for f in _FILES if _room(f) == room):
    for name in _imports(path):
      parts = name.split('.')
      if parts[0] in ('configs', 'tests'):
        pytest.fail(f'{path}: imports {name}')
      if parts[0] == 'tfm' and len(parts) > 1 and (_ROOT / 'tfm' / parts[1]).is_dir():
        assert parts[1] in _BELOW[room] | {room}, f'{path}: {room} may not import {name}'


def test_every_package_has_a_place_in_the_import_order():
  rooms = {p.name for p in (_ROOT / 'tfm').iterdir() if p.is_dir() and (p / '__init__.py').exists()}
  assert rooms <= {*_BELOW, 'cli'}


def test_no_file_has_a_catch_all_name():
  assert not [f for f in _FILES if f.stem in ('utils', 'util', 'common', 'helpers', 'misc')]


def test_files_have_at_most_400_lines():
  long = {str(f): n for f in _FILES if (n := len(f.read_text().splitlines())) > 400}
  assert not long


def _kinds():
  return sorted(
    p.parent
    for p in (_ROOT / 'tfm').rglob('base.py')
    if 'Table(' in (p.parent / '__init__.py').read_text()
  )


@pytest.mark.parametrize('folder', _kinds(), ids=lambda p: str(p.relative_to(_ROOT / 'tfm')))
def test_every_part_is_in_the_table_of_its_kind(folder):
  package = '.'.join(folder.relative_to(_ROOT).parts)
  table = importlib.import_module(package).TABLE
  assert isinstance(table, Table)
  for path in sorted(folder.glob('*.py')):
    if path.stem == '__init__':
      continue
    module = importlib.import_module(f'{package}.{path.stem}')
    for cls in vars(module).values():
      own = isinstance(cls, type) and issubclass(cls, Part) and cls.__module__ == module.__name__
      if not own or cls.table() is not table:
        continue
      abstract = cls not in table.values() and any(issubclass(row, cls) for row in table.values())
      assert abstract or table.name_of(cls), cls
  for name, cls in table.items():
    # In stored configs, `kind` is the kind of a part.
    assert 'kind' not in getattr(cls, '__dataclass_fields__', {}), cls
    assert cls.__module__.startswith(package), (
      f'{name} of {package} is defined elsewhere: {cls.__module__}'
    )


def _paths(name):
  spec = zoo.tiny(zoo.get(name))
  letters = jax.tree_util.tree_leaves_with_path(transformer.param_letters(spec))
  shapes = jax.tree.leaves(transformer.param_shapes(spec))
  keys = [jax.tree_util.keystr(path, simple=True, separator='/') for path, _ in letters]
  return {k: [v, list(s.shape)] for k, (_, v), s in zip(keys, letters, shapes, strict=True)}


def test_parameter_paths_and_shapes_equal_golden_file():
  # A change on purpose: write `{name: _paths(name)}` to the file, and say in the changelog that
  # checkpoints break.
  golden = json.loads(_GOLDEN.read_text())
  assert {name: _paths(name) for name in golden} == golden
