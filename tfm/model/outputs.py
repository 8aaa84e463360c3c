"""Which head of which tower returns an output, and the order in which towers and heads can run."""

from collections.abc import Iterator, Mapping
import functools
from typing import NamedTuple

from tfm.model.spec import MAIN, Model, Tower
from tfm.parts.head.base import Head


class Source(NamedTuple):
  """A head: the name of its tower, and its name in the tower's `heads`."""

  tower: str
  head: str

  @property
  def path(self) -> str:
    """The path of the head in the spec."""
    return f'towers.{self.tower}.heads.{self.head}' if self.tower else f'heads.{self.head}'


def name_of(tower: str, head: Head, output: str) -> str:
  """Return the name under which `apply` returns an output of a head.

  Those of a tower beside the model's own begin with its name, unless the head has a `name`.
  """
  return output if head.name or not tower else f'{tower}_{output}'


def alone(tower: Tower) -> bool:
  """Return whether no head of a tower returns logits over its vocabulary (`HeadContext.alone`)."""
  return not any(head.decodes for head in tower.heads.values())


def listed(model: Model) -> Iterator[tuple[str, Source]]:
  """Yield (output, head) of every output of every head."""
  for tower in (*model.towers, MAIN):
    own = model.tower(tower)
    for name, head in own.heads.items():
      for output in head.returns(alone(own)):
        yield name_of(tower, head, output), Source(tower, name)


@functools.lru_cache(maxsize=512)
def sources(model: Model) -> Mapping[str, Source]:
  """Return the head that returns each output."""
  return dict(listed(model))


def before(model: Model, tower: str) -> frozenset[str]:
  """Return the names of the towers that run before a tower: those that it reads, and those that its
  heads read.
  """
  own, found = model.tower(tower), sources(model)
  by_heads = {
    found[name].tower for head in own.heads.values() for name in head.reads if name in found
  }
  return own.reads_towers | (by_heads - {tower, MAIN})


def head_order(model: Model, tower: str) -> tuple[str, ...]:
  """Return the names of a tower's heads, each after those whose outputs it reads."""
  own, found = model.tower(tower).heads, sources(model)
  ordered: dict[str, None] = {}

  def visit(name: str, path: tuple[str, ...]) -> None:
    for read in own[name].reads:
      source = found.get(read)
      if source is not None and source.tower == tower and source.head not in (*path, *ordered):
        visit(source.head, (*path, source.head))
    ordered.setdefault(name)

  for name in own:
    visit(name, (name,))
  return tuple(ordered)


def no_language_model(model: Model) -> str:
  """Return a predicate for errors about a model without the head `lm`: what it returns, and what
  was expected.
  """
  returned = ', '.join(sources(model)) or 'last_hidden_state'
  return f'is no language model: it returns {returned}. Expected a model with the head lm.'
