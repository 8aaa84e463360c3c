"""Typed configs on frozen dataclasses: set by path and text, validated whole, explained, stored,
compared.

The pieces: `nodes` (the tree and its types), `text` (values as text), `override` (paths),
`provenance` (where values came from), `serial` (JSON)."""

from collections.abc import Iterator
import re
from typing import Any, TypeVar

from tfm.core import errors, nodes
from tfm.core.override import override as override
from tfm.core.provenance import Resolved as Resolved
from tfm.core.provenance import diff as diff
from tfm.core.provenance import explain as explain
from tfm.core.provenance import resolve as resolve
from tfm.core.serial import from_json as from_json
from tfm.core.serial import to_json as to_json
from tfm.core.text import parse as parse
from tfm.core.text import text_of as text_of

C = TypeVar('C')


def validate(cfg: C) -> C:
  """`cfg`, if every value is of its declared type and no `check` in the tree has anything to say.

  A sentence of a `check` that begins with the path of a value inside (`mixer.heads: ...`) is put
  there.

  Raises: ConfigError, with all that is wrong, a line each, by path.
  """
  if wrong := list(dict.fromkeys(_violations(cfg, type(cfg), ''))):
    raise errors.ConfigError('\n'.join(wrong))
  return cfg


def _violations(node: Any, want: Any, path: str) -> Iterator[str]:
  here = path or 'config'
  if not nodes.fits(node, want):
    yield f'{here}: want {nodes.describe(want)}, got {text_of(node, inner=True)}.'
    return
  inside = list(nodes.children(node, want, path))
  # A check may count on the types of its own fields.
  if all(nodes.fits(c.value, c.want) for c in inside):
    check = getattr(node, 'check', None) if nodes.is_node(node) else None
    for sentence in check() if check else ():
      field = re.match(r'([\w.]+): ', sentence)
      known = field and field[1] in (w.path for w in nodes.walk(node))
      yield nodes.join(path, sentence) if known else f'{here}: {sentence}'
  for c in inside:
    yield from _violations(c.value, c.want, c.path)
