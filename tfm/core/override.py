"""Settings `path=text` of flags, written into nested frozen configs."""

from collections.abc import Mapping
import dataclasses
import re
from typing import Any

from tfm.core import errors, nodes
from tfm.core.frozen import FrozenMap
from tfm.core.text import name_of, parse, text_of

DEEP = '..'


class _Misfit(errors.ConfigError):
  """The error of a place without the field; `..` and `*` may find the field elsewhere."""


def override(cfg: Any, path: str, text: str) -> Any:
  """Return a config with the fields at a path replaced.

  A path joins field names by dots. `3` or `-1` selects an element of a tuple, `*` all elements, and
  `..` any depth: `model..relative=alibi` sets every field `relative` below `model`, except inside
  the new values. `..` and `*` skip places without the field, but one place must have it.
  `..norm=layer` replaces existing norms: an optional part that is none stays none, unless it is
  none everywhere. A part chosen by name has its default fields.

  Args:
    cfg: The config.
    path: The path.
    text: The value, parsed by the declared type of each field (`tfm.core.text.parse`).

  Returns:
    The new config.

  Raises:
    ConfigError: No field matches, or the text is no value of its type.
  """
  return write(cfg, path, text)[0]


def write(cfg: Any, path: str, text: str) -> tuple[Any, list[str]]:
  """Return the new config as `override` does, and the concrete paths written, in order.

  Args:
    cfg: The config.
    path: The path.
    text: The value as text.

  Returns:
    `(config, paths)`.
  """
  writer = _Writer(text)
  return writer.into(cfg, type(cfg), steps(path), ''), writer.places


def steps(path: str) -> tuple[str, ...]:
  """Return the steps of a path: names, indices, `*`, and `..` before a name at any depth."""
  found = re.findall(r'\.\.+|[^.]+', path)
  out = tuple(re.sub(r'\.\.+', DEEP, step) for step in found)
  if not out or out[-1] == DEEP or re.match(r'\.[^.]', path):
    raise errors.ConfigError(
      f'{path or "an empty path"}: names no field. Expected names joined by dots, as model..norm.'
    )
  return out


class _Writer:
  """A setting that is being written: its text, and the paths written."""

  def __init__(self, text: str):
    self.text = text
    self.places: list[str] = []

  def into(self, old: Any, want: Any, todo: tuple[str, ...], at: str) -> Any:
    """Return `old` (declared as `want`, at path `at`) with the setting written below it."""
    if not todo:
      value = self._parsed(old, want, at)
      self.places.append(at)
      return value
    head, rest = todo[0], todo[1:]
    if head == DEEP:
      return self._anywhere(old, want, rest, at)
    inside = list(nodes.children(old, want, at))
    if head == '*' and isinstance(old, (tuple, Mapping)):
      return self._all(old, inside, rest, at)
    name = (
      str(len(old) + int(head)) if isinstance(old, tuple) and re.fullmatch(r'-\d+', head) else head
    )
    child = next((c for c in inside if c.name == name), None)
    if child is None and isinstance(old, Mapping) and not rest:  # a mapping takes new keys
      child = nodes.Child(name, None, nodes.entry(want), nodes.join(at, name))
    if child is None:
      raise _Misfit(_nothing_there(old, inside, todo, at))
    # None removes the entry of a map of parts.
    want = child.want | None if isinstance(old, FrozenMap) and not rest else child.want
    return self._replace(old, {child.name: self.into(child.value, want, rest, child.path)}, at)

  def _parsed(self, old: Any, want: Any, at: str) -> Any:
    try:
      return parse(want, self.text, at)
    except errors.ConfigError as e:
      # `..heads=4` is for the heads of attention layers, not for the map of a model's heads.
      if isinstance(old, FrozenMap):
        raise _Misfit(str(e)) from None
      raise

  def _all(self, old: Any, inside: list[nodes.Child], rest: tuple[str, ...], at: str) -> Any:
    misfits, changed = [], {}
    for c in inside:
      try:
        changed[c.name] = self.into(c.value, c.want, rest, c.path)
      except _Misfit as e:
        misfits.append(e)
    if not changed:
      raise _nowhere(nodes.join(at, '.'.join(('*', *rest))), misfits)
    return self._replace(old, changed, at)

  def _anywhere(self, old: Any, want: Any, todo: tuple[str, ...], at: str) -> Any:
    name, written, misfits = todo[0], len(self.places), list[_Misfit]()
    if name == '*' or re.fullmatch(r'-?\d+', name):
      raise errors.ConfigError(
        f"{at}..{name}: '..' finds fields by name, got {name!r}. Expected a name after it."
      )
    new = self._descend(old, want, todo, at, misfits, absent=False)
    if len(self.places) == written and not misfits:
      new = self._descend(old, want, todo, at, misfits, absent=True)
    if len(self.places) == written:
      inside = [old, *(w.value for w in nodes.walk(old))]
      below = sorted({c.name for n in inside for c in _fields(n)})
      former = next(
        (f[name] for n in inside if name in (f := getattr(type(n), 'former', {}))), None
      )
      if former:
        raise _Misfit(f'{at}..{name}: field {name!r} has been renamed. Expected {former!r}.')
      if not misfits:
        raise _Misfit(f'{at}..{name}: {errors.unknown("field", name, below)}')
      raise _nowhere(f'{at}..{_written(todo)}', misfits)
    return new

  def _descend(
    self, old: Any, want: Any, todo: tuple[str, ...], at: str, misfits: list[_Misfit], absent: bool
  ) -> Any:
    """Return `old` with the value set at `todo` in each descendant that has its first step.

    Optional parts that are None are also searched if `absent`.
    """
    changed = {}
    for c in nodes.children(old, want, at):
      new, hit = c.value, nodes.is_node(old) and c.name == todo[0]
      if not hit or len(todo) > 1:  # values that are replaced as a whole stay untouched
        new = self._descend(new, c.want, todo, c.path, misfits, absent)
      elif new is None and not absent and any(map(nodes.is_part, nodes.options(c.want))):
        continue
      if hit:
        try:
          new = self.into(new, c.want, todo[1:], c.path)
        except _Misfit as e:
          misfits.append(e)
      if new is not c.value:
        changed[c.name] = new
    return self._replace(old, changed, at)

  def _replace(self, old: Any, changed: dict[str, Any], at: str) -> Any:
    try:
      return nodes.rebuild(old, changed)
    except ValueError as e:  # raised by __post_init__
      raise errors.ConfigError(f'{at or "config"}: {e}') from None


def _fields(node: Any) -> list[nodes.Child]:
  return list(nodes.children(node, None, '')) if nodes.is_node(node) else []


def _written(todo: tuple[str, ...]) -> str:
  return '.'.join(todo).replace(f'.{DEEP}.', DEEP)


def _nowhere(path: str, misfits: list[_Misfit]) -> _Misfit:
  places = 'the one place' if len(misfits) == 1 else f'any of {len(misfits)} places'
  # Repeated layers all say the same: a sentence for each kind of value, and three of them teach
  # enough.
  reasons = {str(e).partition(': ')[2]: str(e) for e in reversed(misfits)}
  return _Misfit(
    f'{path}: does not fit {places}. ' + ' '.join(list(reversed(reasons.values()))[:3])
  )


def _nothing_there(node: Any, inside: list[nodes.Child], todo: tuple[str, ...], at: str) -> str:
  """Return the error for a step that `node` does not have, with hints where the field exists."""
  head, here, known = todo[0], at or 'config', [c.name for c in inside]
  if new := getattr(type(node), 'former', {}).get(head):
    return f'{here}: field {head!r} has been renamed. Expected {new!r}.'
  if isinstance(node, tuple):
    span = f'an index below {len(node)} or *' if node else 'nothing: the tuple is empty'
    message = f'{here}: no element {head!r}. Expected {span}.'
  elif not nodes.is_node(node):
    message = (
      f'{here}: is {text_of(node)!r}, which has no field {head!r}. Expected a part or a config.'
    )
  elif not nodes.is_part(type(node)):
    message = f'{here}: {errors.unknown("field", head, known)}'
  else:
    part = f'{here}={name_of(node)}'
    message = (
      f'{part}: {errors.unknown("field", head, known)}'
      if known
      else f'{part}: has no fields, and {head!r} is unknown.'
    )
    if rows := _rows_with(node, head):
      message += f' It is a field of {", ".join(rows)}; set {here}={rows[0]} first.'
  if deeper := [w.path for w in nodes.walk(node, path=at) if w.path.rpartition('.')[2] == head]:
    message += f' The field exists at {deeper[0]}; {at}..{_written(todo)} sets all of them.'
  return message


def _rows_with(part: Any, field: str) -> list[str]:
  classes = {name: row for name, row in part.table().items() if dataclasses.is_dataclass(row)}
  return sorted(
    name for name, row in classes.items() if isinstance(row, type) and field in nodes.hints(row)
  )
