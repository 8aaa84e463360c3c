"""Group layers into segments, list the layers of a stack, and read per-layer masks."""

from collections.abc import Collection, Iterable, Sequence
import dataclasses
from typing import Any, TypeVar

from tfm.core import errors
from tfm.model.spec import Block, Segment, depth
from tfm.parts.mask.base import Mask
from tfm.parts.mask.causal import Causal
from tfm.parts.mask.window import Window
from tfm.zoo.family_model import FamilyModel, FamilyTower
from tfm.zoo.fields import Fields

T = TypeVar('T')

LOCAL, GLOBAL = 'sliding_attention', 'full_attention'


def segments(layers: Sequence[Block]) -> tuple[Segment, ...]:
  """Group layers into segments that compile the fewest blocks.

  Ties are resolved by the number of segments, then by the length of the first segment.

  Args:
    layers: the blocks of a stack in order.

  Returns:
    Segments with the same layers in the same order.

  Example:
    >>> a, b = Block(dropout=0.1), Block()
    >>> [(len(s.pattern), s.repeats) for s in segments([a, b, b, a, b, b, a])]
    [(3, 2), (1, 1)]
  """
  n = len(layers)
  number: dict[Block, int] = {}
  kinds = tuple(number.setdefault(layer, len(number)) for layer in layers)
  # Best split of the layers from each index on: (blocks to compile, number of segments,
  # -layers of the first segment, length of its pattern).
  best: list[tuple[int, int, int, int]] = [(0, 0, 0, 0)] * (n + 1)
  for start in reversed(range(n)):
    options = []
    for period in range(1, n - start + 1):
      repeats, pattern = 1, kinds[start : start + period]
      while True:
        end = start + period * repeats
        options.append((period + best[end][0], 1 + best[end][1], start - end, period))
        if kinds[end : end + period] != pattern:
          break
        repeats += 1
    best[start] = min(options)
  found, at = [], 0
  while at < n:
    _, _, covered, period = best[at]
    found.append(Segment(tuple(layers[at : at + period]), -covered // period))
    at -= covered
  return tuple(found)


def layers_of(stack: FamilyTower) -> list[Any]:
  """Return every layer of a stack, in order."""
  return [b for s in stack.segments for _ in range(s.repeats) for b in s.pattern]


def choose(flags: Iterable[object], yes: T, no: T) -> list[T]:
  """Return `yes` for each true flag and `no` for each false flag.

  Args:
    flags: one value per layer.
    yes: entry for true values.
    no: entry for false values.

  Returns:
    One entry per flag.

  Example:
    >>> choose([True, False], 'local', 'global')
    ['local', 'global']
  """
  entry = lambda flag: yes if flag else no
  return [entry(flag) for flag in flags]


def every_nth_global(n: int, every: int) -> list[str]:
  """Return the types of n layers; every `every`-th is global and the others are local."""
  return choose(((i + 1) % every for i in range(n)), LOCAL, GLOBAL)


def causal_mask(window: int | None) -> Mask:
  """Return a causal mask, limited to the last `window` tokens unless that is None."""
  return Causal() if window is None else Causal() & Window(window)


def masks(c: Fields, types: Sequence[str], window: int | None) -> list[Mask]:
  """Return the attention mask of every layer.

  Args:
    c: fields of the config; its `layer_types` take precedence.
    types: layer types if the config has none: `LOCAL` or `GLOBAL` for each layer.
    window: number of tokens that a local layer attends to.

  Returns:
    One causal mask per layer.

  Raises:
    UserError: for an unknown layer type, a local layer without a window, or a wrong number of
      types.
  """
  types = c.get('layer_types', types)
  check_layer_types(c, types, (LOCAL, GLOBAL))
  if LOCAL in types and window is None:
    raise errors.UserError(
      f'{c.where}: sliding_window is null, and layer_types has {LOCAL}. Expected a number of '
      'tokens.'
    )
  return choose((t == LOCAL for t in types), causal_mask(window), causal_mask(None))


def check_layer_types(c: Fields, types: Sequence[str], known: Collection[str]) -> None:
  """Check the `layer_types` of a config.

  Args:
    c: fields of the config.
    types: the type of every layer.
    known: the types that the family supports.

  Raises:
    UserError: for an unknown type, and for a number of types that is not `num_hidden_layers`.
  """
  if unknown := sorted({*types} - {*known}):
    raise errors.UserError(f'{c.where}: layer_types: {errors.unknown("value", unknown[0], known)}')
  if len(types) != (n := c['num_hidden_layers']):
    raise errors.UserError(
      f'{c.where}: layer_types has {len(types)} layers. Expected num_hidden_layers ({n}).'
    )


def types_of(m: FamilyModel) -> list[str]:
  """Return the `layer_types` of a spec."""
  return choose((b.mixer.mask.lookback is None for b in layers_of(m)), GLOBAL, LOCAL)


def window_of(m: FamilyModel) -> int | None:
  """Return the `sliding_window` of a spec, or None if every layer is global."""
  return next((far + 1 for b in layers_of(m) if (far := b.mixer.mask.lookback) is not None), None)


def as_attention(m: FamilyModel) -> Any:
  """Return `m` with its first attention layer in place of every layer.

  Functions that read the sizes of attention from the first layer then work for hybrid models.
  """
  block = next(b for b in layers_of(m) if hasattr(b.mixer, 'sizes'))
  return dataclasses.replace(m, segments=(Segment((block,), depth(m)),))
