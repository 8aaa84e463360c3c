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
  """Return a config if its values have their declared types and its parts fit together.

  Raises:
    ConfigError: lists every violation on a line with its path.
  """
  if wrong := violations(cfg):
    raise errors.ConfigError('\n'.join(wrong))
  return cfg


def violations(cfg: Any) -> list[str]:
  """Return every violation in a config as `path: problem (value). Expected ...`.

  The `check` methods of the tree yield them. A sentence of `check` that begins with the path of a
  field inside (`mixer.heads: ...`) belongs to that field.
  """
  return list(dict.fromkeys(_violations(cfg, type(cfg), '')))


def _violations(node: Any, want: Any, path: str) -> Iterator[str]:
  here = path or 'config'
  if not nodes.fits(node, want):
    yield f'{here}: is {text_of(node, inner=True)}. Expected {nodes.describe(want)}.'
    return
  inside = list(nodes.children(node, want, path))
  # `check` may rely on the types of its fields.
  if all(nodes.fits(c.value, c.want) for c in inside):
    check = getattr(node, 'check', None) if nodes.is_node(node) else None
    for sentence in check() if check else ():
      field = re.match(r'([\w.]+): ', sentence)
      known = field and field[1] in (w.path for w in nodes.walk(node))
      yield nodes.join(path, sentence) if known else f'{here}: {sentence}'
  for c in inside:
    yield from _violations(c.value, c.want, c.path)
