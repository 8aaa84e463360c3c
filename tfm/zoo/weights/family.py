"""What is known of a published family, and the tensor_map it makes for a spec: which tensor is
which parameter.
"""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
import re
from typing import Any

import jax
import numpy as np

from tfm.core import axes, errors
from tfm.model import transformer
from tfm.model.spec import Model, Tower, depth
from tfm.zoo.fields import Fields
from tfm.zoo.weights.rules import Linear, Shape, Slot
from tfm.zoo.weights.rules import Names as Names


@dataclasses.dataclass(frozen=True)
class Top:
  """What a class of a family has on top of the body, put on the spec of the class with the head;
  and its own names.
  """

  put: Callable[[Fields, Model], Model]
  names: Names = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Family:
  """A `model_type` of Hugging Face's.

  Its classes are `stem` and an ending: `head` for the one with the language-model head, those of
  `tops` for others, `body` for the body alone (in `tops` too, if it has something on top). `read`
  makes the spec of the class with the head of a config's fields, `write` the fields of a spec.

  `names` maps modules of our tree to modules of theirs: 'embed', '*/mixer/q', 'encoder/*/ffn/up',
  where `*` is any block on our side and the number of the layer on theirs; a second one on theirs
  is the number of the expert. (Where repeats share their parameters: the numbers of the segment,
  and of the block in its pattern.) Depth k of later tokens has 'mtp/*/mixer/q' and 'mtp/norm', `*`
  the number of the layer k behind the last. A path of one parameter ('head/bias') goes before that
  of its module. Where layers have different kinds of mixer, '*/mamba/x' is the module of that kind
  only, and goes before '*/mixer/x'. A row whose modules the spec has not is not used. Where they
  depend on the spec it is a function of it.

  `prefix` is what the names of the body begin with in a class with a head, and do not in a
  checkpoint of the body alone. `tied` are their names for a tied table's second use; `ignored` are
  patterns of tensors that hold nothing learnt, or are left unread by a class that has no use for
  them (a function of the spec, where they depend on it). `fixed` are tensors that say what the spec
  says too (tables of sinusoids), `twins` those that have a parameter a second time (its path):
  written, and compared where a checkpoint has them. `aliases` are what some checkpoints call a
  module, and what it is called in `names`."""

  stem: str
  read: Callable[[Fields], Model]
  write: Callable[[Model], dict[str, Any]]
  names: Names | Callable[[Model], Names]
  prefix: str = 'model.'
  head: str = 'ForCausalLM'
  tops: Mapping[str, Top] = dataclasses.field(default_factory=dict)
  tied: tuple[str, ...] = ('lm_head.weight',)
  ignored: tuple[str, ...] | Callable[[Model], tuple[str, ...]] = ()
  body: str = 'Model'
  fixed: Callable[[Model], Mapping[str, np.ndarray]] = lambda _: {}
  twins: Callable[[Model], Mapping[str, str]] = lambda _: {}
  aliases: Mapping[str, str] = dataclasses.field(default_factory=dict)

  def names_of(self, spec: Model, ending: str) -> Names:
    """The names of the class with that ending."""
    names = self.names(spec) if callable(self.names) else self.names
    return {**names, **(self.tops[ending].names if ending in self.tops else {})}

  def fixed_of(self, spec: Model, ending: str) -> dict[str, np.ndarray]:
    """`fixed`, under the names they have in the class with that ending."""
    return {
      name.removeprefix(self.prefix) if ending == self.body else name: a
      for name, a in self.fixed(spec).items()
    }

  def ignored_of(self, spec: Model) -> list[re.Pattern[str]]:
    """`ignored`, to be searched for in names."""
    return [re.compile(p) for p in (self.ignored(spec) if callable(self.ignored) else self.ignored)]

  @property
  def endings(self) -> list[str]:
    """How the names of its classes end, the one with the head first."""
    return list(dict.fromkeys((self.head, *self.tops, self.body)))

  def spec(self, c: Fields, ending: str) -> Model:
    """The spec of the class with that ending."""
    spec = self.read(c)
    if ending == self.head:
      return spec
    spec = dataclasses.replace(spec, mtp=None)  # which is said by the head
    return self.tops[ending].put(c, spec) if ending in self.tops else spec.with_heads(lm=None)


@dataclasses.dataclass(frozen=True)
class Tensor:
  """A tensor of theirs: its name and shape, the rule, and the places of ours that it fills."""

  name: str
  shape: Shape
  rule: Linear
  slots: tuple[Slot, ...]


def tensor_map(family: Family, spec: Model, ending: str) -> list[Tensor]:
  """The tensors that hold the parameters of `spec`, each parameter once, in the order of our tree.

  Raises: UserError for parameters that the family has no name for.
  """
  rules = {part: (key, rule) for key, rule in _rules(family.names_of(spec, ending)) for part in key}
  found: dict[tuple[str, Linear], dict[str, Slot]] = {}
  parts: dict[tuple[str, Linear], tuple[str, ...]] = {}
  homeless = []
  leaves = jax.tree_util.tree_leaves_with_path(transformer.param_letters(spec))
  shapes = jax.tree.leaves(transformer.param_shapes(spec))
  for (path, letters), shape in zip(leaves, shapes, strict=True):
    ours = jax.tree_util.keystr(path, simple=True, separator='/')
    leaf = ours.rpartition('/')[2]
    part = next((p for p in _candidates(spec, ours) if p in rules), None)
    if part is None:
      homeless.append(ours)
      continue
    key, rule = rules[part]
    for name, slot in _slots(spec, ours, letters, shape.shape, rule, leaf):
      found.setdefault((name, rule), {})[part] = slot
      parts[name, rule] = key
  if homeless:
    raise errors.UserError(
      f'{family.stem}{ending}: has no name for parameters of the model: {", ".join(homeless)}.'
    )
  tensors = []
  for (name, rule), slots in found.items():
    ordered = tuple(slots[part] for part in parts[name, rule])
    name = name.removeprefix(family.prefix) if ending == family.body else name
    tensors.append(Tensor(name, rule.shape(ordered), rule, ordered))
  return tensors


def _candidates(spec: Model, path: str) -> Iterator[str]:
  """The keys of `names` that a parameter may stand under, the most particular first."""
  part = _DEPTH.sub('mtp/', _BLOCK.sub('*', path))
  block = _BLOCK.search(path)
  if block is not None and '*/mixer/' in part:
    stack = spec.towers.get(path.partition('/')[0]) or spec
    mixer: Any = stack.segments[int(block[1])].pattern[int(block[2])].mixer
    own = part.replace('*/mixer/', f'*/{mixer.table().name_of(mixer)}/')
    yield from (own, own.rpartition('/')[0])
  yield from (part, part.rpartition('/')[0])


_BLOCK = re.compile(r'segment_(\d+)/block_(\d+)')
_DEPTH = re.compile(r'^mtp/depth_(\d+)/')


def _rules(names: Names) -> Iterator[tuple[tuple[str, ...], Linear]]:
  for ours, theirs in names.items():
    yield (
      (ours,) if isinstance(ours, str) else ours,
      Linear(theirs) if isinstance(theirs, str) else theirs,
    )


def _slots(
  spec: Model, path: str, letters: str, shape: Shape, rule: Linear, leaf: str
) -> Iterator[tuple[str, Slot]]:
  """Every tensor's name that holds some of the parameter `path`, with the place in it."""
  name = rule.tensor(leaf)
  block, ahead = _BLOCK.search(path), _DEPTH.match(path)
  later = ahead and depth(spec) + int(ahead[1]) - 1
  if block is None or not letters.startswith('L'):
    for number in (later,) if ahead else () if block is None else block.groups():
      name = name.replace('*', str(number), 1)
    yield name, Slot(path, (), shape, _n_in(path, letters))
    return
  name_of_tower = path.partition('/')[0]
  stack = spec.towers.get(name_of_tower) or spec
  numbers = [later] if ahead else layer_numbers(stack, int(block[1]), int(block[2]))
  experts = name.count('*') == 2
  n_in = _n_in(path, letters[1 + experts :])
  for i, number in enumerate(numbers):
    for e in range(shape[1]) if experts else (None,):
      full = name.replace('*', str(number), 1).replace('*', '' if e is None else rule.expert(e), 1)
      index = (i,) if e is None else (i, e)
      yield full, Slot(path, index, shape[len(index) :], n_in)


def _n_in(path: str, letters: str) -> int:
  return axes.n_inputs(letters.removeprefix('E')) if path.endswith('/kernel') else 0


def layer_numbers(stack: Tower, segment: int, block: int) -> range:
  """The numbers, in the stack, of the layers that are repeats of a block of a segment's pattern."""
  first = sum(len(s.pattern) * s.repeats for s in stack.segments[:segment]) + block
  one = stack.segments[segment]
  return range(first, first + len(one.pattern) * one.repeats, len(one.pattern))
