"""The parts of every kind and the published models, as sheets."""

from collections.abc import Iterator
import importlib
import pkgutil
import re

import tfm
from tfm.cli.sheets import Sheet
from tfm.core import nodes
from tfm.core.registry import Part, Table
from tfm.core.text import text_of


def tables() -> dict[str, Table]:
  """Return every table of parts in the package, by the name of its module."""
  found = {}
  for name in _packages():
    table = getattr(importlib.import_module(name), 'TABLE', None)
    if isinstance(table, Table) and all(
      isinstance(row, type) and issubclass(row, Part) for row in table.values()
    ):
      found[name] = table
  return found


def parts() -> list[Sheet]:
  """Return a sheet for each kind: names of parts, descriptions, and fields with defaults."""
  sheets = []
  for package, table in tables().items():
    rows = tuple((name, _about(cls), _fields(cls)) for name, cls in sorted(table.items()))
    sheets.append(Sheet(f'{table.kind} (`{package}`)', ('name', 'description', 'fields'), rows))
  return sheets


def zoo() -> Sheet:
  """Return the published models, by family."""
  from tfm.model import spec
  from tfm.zoo import TABLE

  rows = []
  for name, entry in TABLE.items():
    model = entry.spec
    layers = ' + '.join(str(spec.depth(tower)) for tower in (*model.towers.values(), model))
    vocab = f'{model.vocab:,}' if model.vocab else 'none'
    rows.append((name, f'{entry.params:,}', layers, str(model.d_model), vocab, entry.paper))
  return Sheet('models', ('name', 'parameters', 'layers', 'width', 'vocab', 'paper'), tuple(rows))


def _packages() -> Iterator[str]:
  def fail(name: str) -> None:
    raise ImportError(f'{name} cannot be imported')

  for module in pkgutil.walk_packages(tfm.__path__, 'tfm.', fail):
    if module.ispkg:
      yield module.name


def _about(cls: type) -> str:
  """Return the first sentence of a class's docstring."""
  text = cls.__doc__ or ''
  # A dataclass without a docstring gets its signature as docstring.
  if text.startswith(f'{cls.__name__}('):
    return ''
  return re.split(r'(?<=\.)\s+(?=[A-Z`])', ' '.join(text.partition('\n\n')[0].split()))[0]


def _fields(cls: type) -> str:
  defaults = {name: nodes.default(cls, name) for name in nodes.hints(cls)}
  texts = []
  for name, value in defaults.items():
    known = value is not nodes.MISSING
    texts.append(f'{name}={text_of(value, inner=True)}' if known else name)
  return ', '.join(texts)
