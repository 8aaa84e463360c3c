"""Configuration of Sphinx for `scripts/docs.sh`."""

from pathlib import Path
import re
import sys

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tfm.version import __version__  # noqa: E402

project, author, release = 'tfm', 'The tfm authors', __version__
copyright = author
extensions = ['sphinx.ext.autodoc', 'sphinx.ext.napoleon', 'myst_parser']
source_suffix = {'.md': 'markdown'}
html_theme = 'furo'
html_title = 'tfm'
html_copy_source = False
html_show_copyright = False
# Guide pages are copies: `pages.py` writes where each of them is in the repository.
html_theme_options = {'source_repository': 'https://github.com/tfm-authors/tfm/'}

myst_heading_anchors = 4
# Links to files of the repository that are no pages become links to GitHub in `pages.py`.
myst_enable_extensions = ['dollarmath']
myst_dmath_double_inline = True

autodoc_default_options = {'members': True, 'show-inheritance': True}
autodoc_member_order = 'bysource'
autodoc_typehints = 'signature'
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
suppress_warnings = ['autodoc.mocked_object', 'ref.python', 'myst.xref_ambiguous', 'myst.header']

_CODE = re.compile(r'(`[^`]+`)')


def _as_rst(app, what, name, obj, options, lines):
  """Turn docstrings, which are Markdown, into reStructuredText in place."""
  i = 0
  while i + 1 < len(lines):
    if lines[i].count('`') % 2:  # code that continues on the next line
      lines[i : i + 2] = [f'{lines[i]} {lines[i + 1].strip()}']
    else:
      i += 1
  for i, line in enumerate(lines):
    if line.lstrip().startswith(('>>>', '...')):
      continue
    pieces = _CODE.split(line)
    for j, piece in enumerate(pieces):
      if j % 2:
        pieces[j] = f'`{piece}`'
        continue
      escaped = re.sub(r'([*_|\\])(?!\s*$)|\*', lambda m: '\\' + m[0], piece)
      # A literal must end before a space or a sign: `jax.Array`s needs an escaped space.
      pieces[j] = f'\\ {escaped}' if j and escaped[:1].isalnum() else escaped
    lines[i] = ''.join(pieces)


def setup(app):
  """Convert docstrings before Napoleon reads their sections."""
  app.connect('autodoc-process-docstring', _as_rst, priority=100)
