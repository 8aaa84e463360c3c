"""Which head returns each output, and the order in which towers and heads can run."""

from collections.abc import Iterator, Mapping
import functools
from typing import NamedTuple

from tfm.model.spec import MAIN, Model, Tower
from tfm.parts.head.base import Head


class HeadPath(NamedTuple):
  """The location of a head: the name of its tower, and its name in `heads`."""

  tower: str
  head: str

  @property
  def path(self) -> str:
    """The path of the head in the spec."""
    return f'towers.{self.tower}.heads.{self.head}' if self.tower else f'heads.{self.head}'


def output_name(tower: str, head: Head, output: str) -> str:
  """Return the name under which `apply` returns an output of a head.

  Args:
    tower: The name of the tower.
    head: The head.
    output: The name that the head itself uses.

  Returns:
    The output's name. For another tower than the model's own it has the prefix `{tower}_`, unless
    the head has a `name`.
  """
  return output if head.name or not tower else f'{tower}_{output}'


def without_lm(tower: Tower) -> bool:
  """Return whether no head of a tower returns logits over its vocabulary."""
  return not any(head.decodes for head in tower.heads.values())


def all_outputs(model: Model) -> Iterator[tuple[str, HeadPath]]:
  """Yield (output name, head) for every output of every head."""
  for name in (*model.towers, MAIN):
    tower = model.tower(name)
    for head_name, head in tower.heads.items():
      for output in head.returns(without_lm(tower)):
        yield output_name(name, head, output), HeadPath(name, head_name)


@functools.lru_cache(maxsize=512)
def output_heads(model: Model) -> Mapping[str, HeadPath]:
  """Return the head that returns each output."""
  return dict(all_outputs(model))


def prerequisites(model: Model, tower: str) -> frozenset[str]:
  """Return the names of the towers that must run before a tower.

  They are the towers that it reads, and those with outputs that its heads read.
  """
  spec, heads = model.tower(tower), output_heads(model)
  read_by_heads = {name for head in spec.heads.values() for name in head.reads}
  towers = {heads[name].tower for name in read_by_heads if name in heads}
  return spec.reads_towers | (towers - {tower, MAIN})


def head_order(model: Model, tower: str) -> tuple[str, ...]:
  """Return the names of a tower's heads, each after those with outputs that it reads."""
  heads, by_output = model.tower(tower).heads, output_heads(model)
  ordered: dict[str, None] = {}

  def visit(name: str, path: tuple[str, ...]) -> None:
    for output in heads[name].reads:
      source = by_output.get(output)
      if source is not None and source.tower == tower and source.head not in (*path, *ordered):
        visit(source.head, (*path, source.head))
    ordered.setdefault(name)

  for name in heads:
    visit(name, (name,))
  return tuple(ordered)


def no_language_model(model: Model) -> str:
  """Return the end of an error message about a model without the head `lm`."""
  returned = ', '.join(output_heads(model)) or 'last_hidden_state'
  return f'is no language model: it returns {returned}. Expected a model with the head lm.'
