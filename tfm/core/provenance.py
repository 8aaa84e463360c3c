"""Where the values of a config came from: a default, the config file, or a flag; and what sets two
configs apart.
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import re
from typing import Any

from tfm.core import errors, nodes
from tfm.core.override import DEEP, steps, write
from tfm.core.text import name_of, text_of


@dataclasses.dataclass(frozen=True)
class Resolved:
  """A config after its flags: the value, and the flag that wrote each place a flag has written."""

  config: Any
  flags: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Value:
  """One line of an explanation: a path, the text of the value there, and where it came from."""

  path: str
  text: str
  source: str


def resolve(cfg: Any, settings: Sequence[tuple[str, str]], flag: str = '--config') -> Resolved:
  """`cfg` with the `(path, text)` settings applied in the order given, later ones winning.

  Raises: ConfigError, also if one path is set twice to different texts.
  """
  seen: dict[tuple[str, ...], str] = {}
  flags: dict[str, str] = {}
  for path, text in settings:
    said = f'{flag}{"" if path.startswith(".") else "."}{path}={text}'
    if seen.setdefault(steps(path), text) != text:
      raise errors.ConfigError(
        f'{path}: set twice, to {seen[steps(path)]!r} and to {text!r}. Expected one of them.'
      )
    cfg, places = write(cfg, path, text)
    for place in places:
      flags = {p: s for p, s in flags.items() if not p.startswith(f'{place}.')} | {place: said}
  return Resolved(cfg, flags)


def explain(resolved: Resolved, pattern: str = '') -> list[Value]:
  """Every value of a config whose path the pattern leads to or above, and where each came from.

  Raises: ConfigError, if the pattern leads nowhere.
  """
  values = list(_values(resolved, resolved.config, nodes.MISSING, ''))
  if not pattern:
    return values
  wanted = re.compile(''.join(map(_regex, steps(pattern))) + r'(\.|$)')
  if not (found := [v for v in values if wanted.match(f'.{v.path}')]):
    names = {part for v in values for part in v.path.split('.') if not part.isdigit()}
    known = [
      n for n in steps(pattern) if n not in names and n not in (DEEP, '*') and not n.isdigit()
    ]
    raise errors.ConfigError(
      f'{pattern}: leads to no value. '
      + (errors.unknown('field', known[0], names) if known else 'Expected a path.')
    )
  return found


def diff(a: Any, b: Any, path: str = '') -> list[str]:
  """Lines `path: old -> new` for all that sets two configs apart, by the smallest values that
  differ.
  """
  return list(_differences(a, b, path))


def _regex(step: str) -> str:
  if step == DEEP:
    return r'(\.[^.]+)*'
  return r'\.[^.]+' if step == '*' else r'\.' + re.escape(step)


def _values(resolved: Resolved, node: Any, usual: Any, path: str) -> Iterator[Value]:
  """The lines below `node`; `usual` is what stands at its place if nobody says anything."""
  for c in nodes.children(node, Any, path):
    if type(usual) is type(node):
      same = next(
        (d.value for d in nodes.children(usual, Any, '') if d.name == c.name), nodes.MISSING
      )
    else:
      same = nodes.default(type(node), c.name) if nodes.is_node(node) else nodes.MISSING
    if nodes.is_part(type(c.value)):
      yield Value(
        c.path,
        name_of(c.value),
        _source(resolved.flags, c.path, type(c.value) is type(same), part=True),
      )
    elif not _is_deep(c.value):
      yield Value(
        c.path, text_of(c.value) or "''", _source(resolved.flags, c.path, c.value == same)
      )
    if _is_deep(c.value):
      # Below a place that a flag has filled, the defaults are those of what it put there.
      yield from _values(
        resolved, c.value, nodes.MISSING if c.path in resolved.flags else same, c.path
      )


def _is_deep(value: Any) -> bool:
  inside = nodes.children(value, Any, '')
  return nodes.is_node(value) or any(_is_deep(c.value) for c in inside)


def _source(flags: Mapping[str, str], path: str, usual: bool, part: bool = False) -> str:
  # A flag may have set an element of a tuple or a key of a mapping; the fields of a part have lines
  # of their own.
  inside = [] if part else [p for p in flags if p.startswith(f'{path}.')]
  if path in flags or (inside and not usual):
    return f'flag {flags[path if path in flags else inside[-1]]}'
  if above := [p for p in flags if path.startswith(f'{p}.')]:
    said = f'flag {flags[max(above, key=len)]}'
    return f'default, chosen by {said}' if usual else said
  return 'default' if usual else 'file'


def _differences(a: Any, b: Any, path: str) -> Iterator[str]:
  old = {c.name: c.value for c in nodes.children(a, Any, '')}
  new = {c.name: c.value for c in nodes.children(b, Any, '')}
  # By name: a config file read twice defines its classes twice.
  if type(a).__qualname__ != type(b).__qualname__ or not (
    _is_deep(a) or _is_deep(b) or isinstance(a, Mapping)
  ):
    if repr(a) != repr(b):  # 1 == 1.0, and nan is not itself
      yield f'{path or "config"}: {text_of(a, inner=True)} -> {text_of(b, inner=True)}'
    return
  for name in [*old, *(n for n in new if n not in old)]:
    at = nodes.join(path, name)
    if name not in new:
      yield f'{at}: {text_of(old[name], inner=True)} -> absent'
    elif name not in old:
      yield f'{at}: absent -> {text_of(new[name], inner=True)}'
    else:
      yield from _differences(old[name], new[name], at)
