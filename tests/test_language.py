"""The prose of the tree is plain English: docstrings, comments, messages, Markdown, test names.

Each pattern below marks wording that readers had to decode: verbs of speech for data flow, clauses
in place of nouns, archaic adverbs. A few uses are fine, so each kind of text has a limit per 100.
"""

import ast
from collections.abc import Iterator
import functools
import io
from pathlib import Path
import re
import tokenize
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ('tfm', 'tests', 'scripts', 'configs', 'colabs')
#: Texts with a marked wording that are allowed, per 100 texts of a kind.
LIMITS = {'docstring': 4, 'markdown': 4, 'message': 3, 'comment': 3, 'test name': 1}

_PHRASES = (
  # Data does not speak, see or know.
  r'(?:is|are|was|were|been?) (?:told|asked|said|known|looked (?:at|up to))',
  r'(?:tells|says|asks|sees|knows|speaks|minds)',
  r'(?:told|asked) (?:of|by|for|to|that|what)',
  # Clauses in place of nouns.
  r'what (?:is|are|was|were|it|they|a|an|the|no|there) ',
  r'of what',
  r'(?:those|ones?) (?:of|that|which|whose|who)',
  r'whose',
  # Vague people and quantities.
  r'(?:no|some|every)body|whoever',
  r'so many|as many as|so far|how manieth|manieth',
  # Words of another century.
  r'beside|anew|alike|apart|thereof|wherever|henceforth|(?:out of|in) sight',
  r'go(?:es)? on|gone on|at once|shows itself|dear',
  r'stands?|stood',
  r'of (?:its|their) own|of (?:ours|theirs)',
  r'as it (?:is|stands|was)|as they (?:are|stand|were)',
  r'[Ww]anted',
)
_MARKED = re.compile(rf'\b(?:{"|".join(_PHRASES)})(?:\b|(?<= ))|^What\b')


class Text(NamedTuple):
  """A text that a person reads, its kind, and its place."""

  kind: str
  where: str
  text: str


def _markdown(path: Path, source: str) -> Iterator[Text]:
  fenced = False
  for number, line in enumerate(source.splitlines(), 1):
    if line.startswith('```'):
      fenced = not fenced
    elif not fenced and not line.startswith('|') and len(line) > 30:
      yield Text('markdown', f'{path}:{number}', line)


def _python(path: Path, source: str) -> Iterator[Text]:
  tree = ast.parse(source)
  docstrings = set()
  scopes = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
  for node in ast.walk(tree):
    if not isinstance(node, scopes):
      continue
    where = f'{path}:{getattr(node, "lineno", 1)}'
    if text := ast.get_docstring(node):
      docstrings.add(id(node.body[0].value))
      yield Text('docstring', where, text)
    if isinstance(node, ast.FunctionDef) and node.name.startswith('test_'):
      yield Text('test name', where, node.name.replace('_', ' '))
  for node in ast.walk(tree):
    if isinstance(node, ast.Constant) and id(node) not in docstrings:
      text = node.value
      if isinstance(text, str) and len(text) > 25 and text.count(' ') > 3:
        yield Text('message', f'{path}:{node.lineno}', text)
  for token in tokenize.generate_tokens(io.StringIO(source).readline):
    if token.type == tokenize.COMMENT and len(token.string) > 25:
      yield Text('comment', f'{path}:{token.start[0]}', token.string)


@functools.cache
def texts() -> tuple[Text, ...]:
  """Return all texts of the tree."""
  files = [path for name in FOLDERS for path in sorted((ROOT / name).rglob('*'))]
  found: list[Text] = []
  for path in [*files, *ROOT.glob('*.md')]:
    read = {'.py': _python, '.md': _markdown}.get(path.suffix)
    if read is not None and path != Path(__file__):
      found += read(path.relative_to(ROOT), path.read_text('utf-8'))
  return tuple(found)


@pytest.mark.parametrize('kind', LIMITS)
def test_prose_is_plain_english(kind):
  chosen = [text for text in texts() if text.kind == kind]
  marked = [text for text in chosen if _MARKED.search(text.text)]
  worst = '\n'.join(f'{text.where}: {" ".join(text.text.split())[:120]}' for text in marked[:60])
  assert 100 * len(marked) <= LIMITS[kind] * len(chosen), worst


def test_patterns_find_marked_wording():
  marked = ('what is kept of it', 'is told of tokens', 'whose rows', 'beside the mask', 'so many')
  assert all(_MARKED.search(text) for text in marked)
  plain = ('cached keys and values', 'Return the logits of a batch.', 'besides the mask')
  assert not [text for text in plain if _MARKED.search(text)]


def test_names_of_tests_have_at_most_60_characters():
  names = [text for text in texts() if text.kind == 'test name']
  assert not [t.where for t in names if len(t.text) > 60]


def _public(path: Path) -> Iterator[tuple[str, ast.FunctionDef]]:
  """Yield the public functions of a module, and the methods of its public classes."""
  for node in ast.parse(path.read_text('utf-8')).body:
    if isinstance(node, ast.FunctionDef):
      yield '', node
    elif isinstance(node, ast.ClassDef) and not node.name.startswith('_'):
      yield from ((node.name, m) for m in node.body if isinstance(m, ast.FunctionDef))


def test_public_functions_document_arguments_and_results():
  """Overriding methods inherit the documentation of their base and count only if documented."""
  documented, missing = 0, []
  for path in sorted((ROOT / 'tfm').rglob('*.py')):
    for cls, function in _public(path):
      a = function.args
      names = [x.arg for x in a.posonlyargs + a.args + a.kwonlyargs if x.arg not in ('self', 'cls')]
      text = ast.get_docstring(function) or ''
      if function.name.startswith('_') or len(names) < 3 or (cls and not text):
        continue
      nothing = isinstance(function.returns, ast.Constant) and function.returns.value is None
      if 'Args:' in text and (nothing or 'Returns:' in text or 'Yields:' in text):
        documented += 1
      else:
        missing.append(f'{path.relative_to(ROOT)}:{function.lineno} {cls} {function.name}')
  assert documented >= 0.6 * (documented + len(missing)), '\n'.join(missing)


def test_attributes_of_docstrings_are_lists():
  """A list of attributes on one line is a paragraph for every reader of docstrings."""
  joined = re.compile(r'^\s*(Args|Attributes|Returns|Raises|Yields): \w+: ', re.MULTILINE)
  assert not [t.where for t in texts() if t.kind == 'docstring' and joined.search(t.text)]
