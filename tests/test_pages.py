"""Generated pages equal what their scripts write."""

import functools
import importlib.util
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PARTS = ('PARTS.md', 'REFUSED.md')


@functools.cache
def script(name: str):
  """Return the module scripts/NAME.py."""
  spec = importlib.util.spec_from_file_location(name, ROOT / 'scripts' / f'{name}.py')
  assert spec is not None
  assert spec.loader is not None
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


@pytest.mark.parametrize('page', PARTS, ids=lambda page: f'page={page}')
def test_pages_of_parts_are_up_to_date(page):
  pages = script('parts_page')
  text = (pages.FOLDER / page).read_text('utf-8')
  assert text == pages.PAGES[page](), 'Run python scripts/parts_page.py and commit the page.'


def test_every_part_has_a_description():
  pages = script('parts_page')
  tables = pages.catalog.tables().values()
  assert not [cls for table in tables for cls in table.values() if not pages.describe(cls)]


def test_pages_link_to_files_that_exist():
  for page in PARTS:
    text = (ROOT / 'tfm' / 'parts' / page).read_text('utf-8')
    links = [link for link in re.findall(r'\]\(([^)]+)\)', text) if not link.startswith('http')]
    assert all((ROOT / 'tfm' / 'parts' / link).exists() for link in links), page
