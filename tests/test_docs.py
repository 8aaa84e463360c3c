"""Pages of the documentation: their Python runs, their links exist, and the README stays short."""

import importlib.util
from pathlib import Path
import re
import statistics

import pytest

from tests.hub.folders import chat_folder
from tests.test_readme import README

ROOT = README.parent
_SCRIPT = importlib.util.spec_from_file_location('pages', ROOT / 'scripts' / 'docs' / 'pages.py')
assert _SCRIPT is not None
assert _SCRIPT.loader is not None
pages = importlib.util.module_from_spec(_SCRIPT)
_SCRIPT.loader.exec_module(pages)

GUIDES = [page for page in pages.guides() if re.search(r'(README|ADDING)\.md$', page)]


def _python(page: str) -> list[str]:
  return re.findall(r'```python\n(.*?)```', (ROOT / page).read_text('utf-8'), re.DOTALL)


def test_every_package_has_a_page():
  rooms = {path.parent.name for path in (ROOT / 'tfm').glob('*/__init__.py')}
  assert rooms == {Path(page).parent.name for page in GUIDES if page.startswith('tfm/')}


@pytest.mark.parametrize('page', [page for page in GUIDES if _python(page)])
def test_python_of_a_page_runs(page, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  chat_folder(tmp_path / 'folder')
  # Dataclasses look up their module, so the name must exist.
  names: dict[str, object] = {'__name__': __name__}
  for block in _python(page):
    exec(compile(block, page, 'exec'), names)


@pytest.mark.parametrize('page', [*pages.guides(), 'README.md'])
def test_links_of_a_page_lead_to_files(page):
  text = (ROOT / page).read_text('utf-8')
  pages.linked(text, page, set(pages.guides()))


def test_readme_is_short_and_its_sentences_too():
  text = README.read_text('utf-8')
  assert len(text.encode()) <= 9_000
  assert len(text.splitlines()) <= 250
  prose = re.sub(r'```.*?```', '', text, flags=re.DOTALL)
  prose = re.sub(r'^[|#!].*$|<!--.*?-->', '', prose, flags=re.MULTILINE)
  prose = re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', prose)
  pieces = re.split(r'(?<=[.?!:;])\s+|\n\s*\n|^\s*- ', prose, flags=re.MULTILINE)
  lengths = [len(piece.split()) for piece in pieces if len(piece.split()) > 2]
  assert statistics.mean(lengths) <= 14
  assert statistics.quantiles(lengths, n=10)[-1] <= 26


def test_numbers_in_the_readme_are_true():
  from tfm import zoo
  from tfm.zoo import weights

  text = README.read_text('utf-8')
  number = {name: re.findall(rf'<!-- {name} -->(\d+)<!-- end -->', text) for name in _COUNTS}
  assert number['families'] == [str(len(weights.TABLE))]
  assert number['models'] == [str(len(zoo.TABLE))]
  (path,) = re.findall(r'The code, in this order: (.*?)\. These', text, re.DOTALL)
  files = re.findall(r'`([^`]+)`', path)
  lines = sum(len((ROOT / name).read_text('utf-8').splitlines()) for name in files)
  assert number['lines'] == [str(round(lines, -2))]


_COUNTS = ('families', 'models', 'lines')
