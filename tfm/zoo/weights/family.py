"""A published family, and the mapping from its checkpoint tensors to parameters."""

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
  """Head of one class of a family.

  Attributes:
    put: function of the config and the spec with the language-model head; it returns the spec of
      the class.
    names: modules of the head and their names in checkpoints.
  """

  put: Callable[[Fields, Model], Model]
  names: Names = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Family:
  """A `model_type` of `transformers`: its classes, its configs and its tensor names.

  The classes are named `stem` plus an ending: `head` for the class with the language-model head,
  the keys of `tops` for other heads, and `body` for the model without a head.

  `names` maps modules of tfm to modules of the checkpoint, such as 'embed', '*/mixer/q' or
  'encoder/*/ffn/up'. In a key, `*` is any block. In a checkpoint name, the first `*` is the number
  of the layer and the second the number of the expert. If repeats of a segment share parameters,
  they are the number of the segment and the number of the block in its pattern. Three keys are
  special:

  - 'mtp/*/mixer/q' and 'mtp/norm' belong to multi-token prediction depth k. `*` in their checkpoint
    name is the number of the k-th layer after the last one.
  - The path of one parameter ('head/bias') takes precedence over the path of its module.
  - With several kinds of mixer, '*/mamba/x' matches that kind only and precedes '*/mixer/x'.

  Entries for modules that the spec lacks are ignored. `names` may be a function of the spec.

  Attributes:
    stem: first part of the class names.
    read: function from the fields of a config to the spec of the class with the head.
    write: function from a spec to the fields of a config.
    names: mapping of modules, or a function of the spec that returns it.
    prefix: prefix of the body's tensors in a class with a head, absent in checkpoints of the body.
    head: ending of the class with the language-model head.
    tops: other heads, by the ending of their class.
    tied: checkpoint names of a tied table's second use.
    ignored: patterns of tensors that are not loaded, or a function of the spec that returns them.
    body: ending of the class without a head.
    fixed: function from a spec to constant tensors that checkpoints store, such as sinusoids.
    twins: function from a spec to names of duplicate tensors, each with the path of its parameter.
      They are written, and compared if a checkpoint has them.
    aliases: other checkpoint names of modules, each with the name used in `names`.
  """

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
    """Return the module names of the class with that ending."""
    names = self.names(spec) if callable(self.names) else self.names
    return {**names, **(self.tops[ending].names if ending in self.tops else {})}

  def fixed_of(self, spec: Model, ending: str) -> dict[str, np.ndarray]:
    """Return the constant tensors by their names in the class with that ending."""
    prefix = self.prefix if ending == self.body else ''
    return {name.removeprefix(prefix): a for name, a in self.fixed(spec).items()}

  def ignored_of(self, spec: Model) -> list[re.Pattern[str]]:
    """Return the patterns of ignored tensors, compiled for `search`."""
    ignored = self.ignored(spec) if callable(self.ignored) else self.ignored
    return [re.compile(p) for p in ignored]

  @property
  def endings(self) -> list[str]:
    """Endings of the class names, that of the language model first."""
    return list(dict.fromkeys((self.head, *self.tops, self.body)))

  def spec(self, c: Fields, ending: str) -> Model:
    """Return the spec of the class with that ending."""
    spec = self.read(c)
    if ending == self.head:
      return spec
    spec = dataclasses.replace(
      spec, mtp=None
    )  # multi-token prediction needs the language-model head
    return self.tops[ending].put(c, spec) if ending in self.tops else spec.with_heads(lm=None)


@dataclasses.dataclass(frozen=True)
class Tensor:
  """A tensor of a checkpoint and the parameters that it holds.

  Attributes:
    name: name in the checkpoint.
    shape: shape in the checkpoint.
    rule: conversion between the tensor and the parameters.
    slots: places of the parameters in tfm's tree.
  """

  name: str
  shape: Shape
  rule: Linear
  slots: tuple[Slot, ...]


def nested(names: Mapping[str, str], path: str, module: str) -> dict[Any, str]:
  """Return names of a module as names of its parts in a larger model.

  Args:
    names: paths in the module and their names in checkpoints.
    path: prefix of the paths.
    module: prefix of the names in checkpoints.

  Example:
    >>> nested({'q': 'q_proj'}, '*/mixer/', 'layers.*.attn.')
    {'*/mixer/q': 'layers.*.attn.q_proj'}
  """
  return {path + inner: module + name for inner, name in names.items()}


def tensor_map(family: Family, spec: Model, ending: str) -> list[Tensor]:
  """Return the checkpoint tensors of a spec, in the order of tfm's parameters.

  Args:
    family: the family of the checkpoint.
    spec: the model.
    ending: ending of its class, as in `Family.endings`.

  Returns:
    The tensors that hold the parameters of `spec`, each parameter once.

  Raises:
    UserError: if the family has no name for some parameters.
  """
  rules = {part: (key, rule) for key, rule in _rules(family.names_of(spec, ending)) for part in key}
  slots_of: dict[tuple[str, Linear], dict[str, Slot]] = {}
  parts: dict[tuple[str, Linear], tuple[str, ...]] = {}
  unnamed = []
  leaves = jax.tree_util.tree_leaves_with_path(transformer.param_letters(spec))
  shapes = jax.tree.leaves(transformer.param_shapes(spec))
  for (keys, letters), shape in zip(leaves, shapes, strict=True):
    path = jax.tree_util.keystr(keys, simple=True, separator='/')
    leaf = path.rpartition('/')[2]
    part = next((p for p in _candidates(spec, path) if p in rules), None)
    if part is None:
      unnamed.append(path)
      continue
    key, rule = rules[part]
    for name, slot in _slots(spec, path, letters, shape.shape, rule, leaf):
      slots_of.setdefault((name, rule), {})[part] = slot
      parts[name, rule] = key
  if unnamed:
    raise errors.UserError(
      f'{family.stem}{ending}: no checkpoint name for {", ".join(unnamed)}. '
      'Expected an entry in `names`.'
    )
  tensors = []
  for (name, rule), slots in slots_of.items():
    ordered = tuple(slots[part] for part in parts[name, rule])
    name = name.removeprefix(family.prefix) if ending == family.body else name
    tensors.append(Tensor(name, rule.shape(ordered), rule, ordered))
  return tensors


def _candidates(spec: Model, path: str) -> Iterator[str]:
  """Yield the keys of `names` that match a parameter, the most specific first."""
  part = _DEPTH.sub('mtp/', _BLOCK.sub('*', path))
  block = _BLOCK.search(path)
  if block is not None and '*/mixer/' in part:
    stack = spec.towers.get(path.partition('/')[0]) or spec
    mixer: Any = stack.segments[int(block[1])].pattern[int(block[2])].mixer
    of_kind = part.replace('*/mixer/', f'*/{mixer.table().name_of(mixer)}/')
    yield from (of_kind, of_kind.rpartition('/')[0])
  yield from (part, part.rpartition('/')[0])


_BLOCK = re.compile(r'segment_(\d+)/block_(\d+)')
_DEPTH = re.compile(r'^mtp/depth_(\d+)/')


def _rules(names: Names) -> Iterator[tuple[tuple[str, ...], Linear]]:
  for path, name in names.items():
    keys = (path,) if isinstance(path, str) else path
    yield keys, Linear(name) if isinstance(name, str) else name


def _slots(
  spec: Model, path: str, letters: str, shape: Shape, rule: Linear, leaf: str
) -> Iterator[tuple[str, Slot]]:
  """Yield each tensor that holds part of the parameter `path`, with the slot of that part."""
  name = rule.tensor(leaf)
  block, ahead = _BLOCK.search(path), _DEPTH.match(path)
  later = ahead and depth(spec) + int(ahead[1]) - 1
  if block is None or not letters.startswith('L'):
    if ahead:
      name = name.replace('*', str(later), 1)
    elif block is not None:
      name = name.replace('*', block[1], 1).replace('*', block[2], 1)
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
  """Return the numbers of the layers that repeat one block of a segment.

  Args:
    stack: the stack of layers.
    segment: index of the segment.
    block: index of the block in the segment's pattern.

  Returns:
    The numbers, counted from the first layer of the stack.
  """
  first = sum(len(s.pattern) * s.repeats for s in stack.segments[:segment]) + block
  one = stack.segments[segment]
  return range(first, first + len(one.pattern) * one.repeats, len(one.pattern))
