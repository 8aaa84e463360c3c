"""Sources of config values (default, file or flag), and differences between configs."""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import re
from typing import Any

from tfm.core import errors, nodes
from tfm.core.override import DEEP, steps, write
from tfm.core.text import name_of, text_of


@dataclasses.dataclass(frozen=True)
class Resolved:
  """A config after its flags.

  Attributes:
    config: The config.
    flags: The flag that wrote each path.
  """

  config: Any
  flags: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Value:
  """One line of an explanation.

  Attributes:
    path: The path of a value.
    text: The value as text.
    source: 'default', 'file' or the flag.
  """

  path: str
  text: str
  source: str


def resolve(
  cfg: Any,
  settings: Sequence[tuple[str, str]],
  flag: str = '--config',
  mistakes: list[str] | None = None,
) -> Resolved:
  """Return a config with settings applied in order; later ones replace earlier ones.

  Args:
    cfg: The config before its flags.
    settings: `(path, text)` pairs.
    flag: The flag that the settings belong to, for explanations.
    mistakes: A list that takes the errors; settings with errors are skipped. None raises them.

  Returns:
    The new config, and the flag that wrote each place.

  Raises:
    ConfigError: lists every setting that is wrong, and paths that are set to two values.
  """
  texts: dict[tuple[str, ...], str] = {}
  flags: dict[str, str] = {}
  wrong: list[str] = []
  for path, text in settings:
    setting = f'{flag}{"" if path.startswith(".") else "."}{path}={text}'
    try:
      if texts.setdefault(steps(path), text) != text:
        raise errors.ConfigError(
          f'{path}: set twice, to {texts[steps(path)]!r} and to {text!r}. Expected one value.'
        )
      cfg, places = write(cfg, path, text)
    except errors.ConfigError as error:
      wrong.append(str(error))
      continue
    for place in places:
      kept = {p: s for p, s in flags.items() if not p.startswith(f'{place}.')}
      flags = kept | {place: setting}
  if wrong and mistakes is None:
    raise errors.ConfigError('\n'.join(wrong))
  if mistakes is not None:
    mistakes += wrong
  return Resolved(cfg, flags)


def explain(resolved: Resolved, pattern: str = '') -> list[Value]:
  """Return the values of a config and their sources.

  Args:
    resolved: The config.
    pattern: A path, which may contain `..` and `*`, of the values to return; '' returns all.

  Returns:
    A `Value` for each path, in order.

  Raises:
    ConfigError: No path matches the pattern.
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
      f'{pattern}: matches no value. '
      + (errors.unknown('field', known[0], names) if known else 'Expected a path.')
    )
  return found


def diff(a: Any, b: Any, path: str = '') -> list[str]:
  """Return the differences of two configs as lines `path: old -> new`.

  Args:
    a: A config.
    b: Another config.
    path: A prefix of the paths.
  """
  return list(_differences(a, b, path))


def _regex(step: str) -> str:
  if step == DEEP:
    return r'(\.[^.]+)*'
  return r'\.[^.]+' if step == '*' else r'\.' + re.escape(step)


def _values(resolved: Resolved, node: Any, usual: Any, path: str) -> Iterator[Value]:
  """Yield the values below a node; `usual` is the default of the node."""
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
      # Below a value that a flag has set, defaults come from that value.
      yield from _values(
        resolved, c.value, nodes.MISSING if c.path in resolved.flags else same, c.path
      )


def _is_deep(value: Any) -> bool:
  inside = nodes.children(value, Any, '')
  return nodes.is_node(value) or any(_is_deep(c.value) for c in inside)


def _source(flags: Mapping[str, str], path: str, usual: bool, part: bool = False) -> str:
  # A flag may have set an element of a tuple or a key of a mapping. Fields of a part have other
  # lines.
  inside = [p for p in flags if p.startswith(f'{path}.') and not part]
  if path in flags or (inside and not usual):
    return f'flag {flags[path if path in flags else inside[-1]]}'
  if above := [p for p in flags if path.startswith(f'{p}.')]:
    flag = f'flag {flags[max(above, key=len)]}'
    return f'default, chosen by {flag}' if usual else flag
  return 'default' if usual else 'file'


def _differences(a: Any, b: Any, path: str) -> Iterator[str]:
  old = {c.name: c.value for c in nodes.children(a, Any, '')}
  new = {c.name: c.value for c in nodes.children(b, Any, '')}
  # Compare names: a config file that is loaded twice defines its classes twice.
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
