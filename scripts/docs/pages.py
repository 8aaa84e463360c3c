"""Collect the pages of the documentation site: Markdown from the repository, and API pages.

python scripts/docs/pages.py OUTPUT
"""

from pathlib import Path
import re
import sys

ROOT = Path(__file__).resolve().parents[2]
GITHUB = 'https://github.com/tfm-authors/tfm/blob/main'

#: Sections of the site: the title, and its pages by their paths in the repository.
SECTIONS = {
  'Use tfm': ('configs/README.md', 'colabs/README.md', 'tfm/parts/README.md'),
  'Rooms': (
    'tfm/core/README.md', 'tfm/model/README.md', 'tfm/zoo/README.md', 'tfm/data/README.md',
    'tfm/tasks/README.md', 'tfm/optim/README.md', 'tfm/train/README.md', 'tfm/generate/README.md',
    'tfm/plan/README.md', 'tfm/hub/README.md', 'tfm/evaluate/README.md', 'tfm/cli/README.md',
    'tfm/formal/README.md',
  ),
  'Add to tfm': (
    'tfm/parts/ADDING.md', 'tfm/zoo/ADDING.md', 'tfm/data/ADDING.md', 'tfm/tasks/ADDING.md',
    'tfm/optim/ADDING.md', 'tfm/hub/ADDING.md', 'tfm/cli/ADDING.md', 'CONTRIBUTING.md',
  ),
  'Reference': (
    'tfm/parts/PARTS.md', 'tfm/parts/REFUSED.md', 'tfm/zoo/MODELS.md', 'tfm/zoo/TEXT_MODELS.md',
    'tfm/plan/CASES.md', 'scripts/bench/NOTES.md', 'CHANGELOG.md',
  ),
}  # fmt: skip
ROOMS = (
  'core',
  'formal',
  'model',
  'parts',
  'zoo',
  'data',
  'tasks',
  'optim',
  'train',
  'generate',
  'plan',
  'hub',
  'evaluate',
)
#: Modules of families are listed in MODELS.md: one page for each would hide the others.
CORE_OF_ZOO = ('entry', 'fields', 'rotary', 'bookkeeping', 'llama', 'weights', 'weights.family')

_LINK = re.compile(r'(\]\()([^)#\s]+)(#[^)\s]*)?(\))')


def guides() -> list[str]:
  """Return the paths of all pages that exist."""
  return [page for pages in SECTIONS.values() for page in pages if (ROOT / page).exists()]


def linked(text: str, page: str, pages: set[str]) -> str:
  """Return a page with links to other pages kept, and links to other files pointing to GitHub.

  Args:
    text: The Markdown of the page.
    page: Its path in the repository.
    pages: The paths of all pages.
  """

  def link(match: re.Match[str]) -> str:
    start, target, anchor, end = match.groups()
    if '://' in target or target.startswith('mailto:'):
      return match[0]
    path = ((ROOT / page).parent / target).resolve()
    name = str(path.relative_to(ROOT))
    if not path.exists():
      raise SystemExit(f'{page}: links to {target}, which does not exist.')
    if name == 'README.md':
      name = 'index.md'
    if name in pages or name == 'index.md':
      return f'{start}/{name}{anchor or ""}{end}'
    if path.suffix in ('.png', '.svg'):
      return match[0]
    return f'{start}{GITHUB}/{name}{anchor or ""}{end}'

  return _LINK.sub(link, text)


def packages(room: str) -> list[str]:
  """Return the packages of a room that have an API page: itself, and those inside it."""
  folder = ROOT / 'tfm' / room
  inside = [path.parent for path in sorted(folder.rglob('__init__.py'))]
  names = ['.'.join(path.relative_to(ROOT).parts) for path in inside]
  return [name for name in names if room != 'zoo' or name == 'tfm.zoo']


def modules(package: str) -> list[str]:
  """Return the modules of a package, in alphabetical order."""
  if package == 'tfm.zoo':
    return [package, *(f'tfm.zoo.{name}' for name in CORE_OF_ZOO)]
  paths = sorted((ROOT / package.replace('.', '/')).glob('*.py'))
  return [package, *(f'{package}.{path.stem}' for path in paths if path.stem != '__init__')]


def api(package: str) -> str:
  """Return the API page of a package."""
  lines = [f'# {package}', '']
  for name in modules(package):
    if name != package:
      lines += [f'## {name.removeprefix(package + ".")}', '']
    lines += ['```{eval-rst}', f'.. automodule:: {name}', '```', '']
  inside = packages(package.removeprefix('tfm.')) if package.count('.') == 1 else []
  if len(inside) > 1:
    lines += ['```{toctree}', ':hidden:', '', *(f'/api/{name}' for name in inside[1:]), '```', '']
  return '\n'.join(lines)


def index() -> str:
  """Return the first page: the README, and the table of contents."""
  text = (ROOT / 'README.md').read_text('utf-8')
  lines = [linked(text, 'README.md', set(guides()))]
  for title, pages in SECTIONS.items():
    lines += ['', '```{toctree}', ':hidden:', f':caption: {title}', '']
    lines += [f'/{page.removesuffix(".md")}' for page in pages if page in guides()]
    lines.append('```')
  lines += ['', '```{toctree}', ':hidden:', ':caption: API', '']
  return '\n'.join([*lines, *(f'/api/tfm.{room}' for room in ROOMS), '```', ''])


def main(output: Path) -> None:
  """Write all pages."""
  pages = set(guides())
  for page in pages:
    target = output / page
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(linked((ROOT / page).read_text('utf-8'), page, pages), 'utf-8')
  (output / 'api').mkdir(parents=True, exist_ok=True)
  for package in (name for room in ROOMS for name in packages(room)):
    (output / 'api' / f'{package}.md').write_text(api(package), 'utf-8')
  (output / 'index.md').write_text(index(), 'utf-8')
  for image in (ROOT / 'scripts').glob('*.png'):
    (output / 'scripts').mkdir(exist_ok=True)
    (output / 'scripts' / image.name).write_bytes(image.read_bytes())


if __name__ == '__main__':
  main(Path(sys.argv[1]))
