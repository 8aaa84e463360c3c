"""Layers one by one: as segments and back, and what configs say of each."""

from collections.abc import Sequence
import dataclasses
from typing import Any

from tfm.core import errors
from tfm.model.spec import Block, Segment, depth
from tfm.parts.mask.base import Mask
from tfm.parts.mask.causal import Causal
from tfm.parts.mask.window import Window
from tfm.zoo.fields import Fields

LOCAL, GLOBAL = 'sliding_attention', 'full_attention'


def segments(layers: Sequence[Block]) -> tuple[Segment, ...]:
  """The layers as segments: as few blocks in their patterns as can be, then few segments, then the
  longest first.

  Example:
    >>> a, b = Block(dropout=0.1), Block()
    >>> [(len(s.pattern), s.repeats) for s in segments([a, b, b, a, b, b, a])]
    [(3, 2), (1, 1)]
  """
  n = len(layers)
  number: dict[Block, int] = {}
  kinds = tuple(number.setdefault(layer, len(number)) for layer in layers)
  # From each layer on: (blocks to compile, segments, - layers of the first one, how long its
  # pattern is).
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


def layers_of(stack: Any) -> list[Any]:
  """Every layer, in order."""
  return [b for s in stack.segments for _ in range(s.repeats) for b in s.pattern]


def seen(window: int | None) -> Mask:
  """The last `window` tokens, or all that came before."""
  return Causal() if window is None else Causal() & Window(window)


def masks(c: Fields, types: Sequence[str], window: int | None) -> list[Mask]:
  """The mask of every layer, as `layer_types` or, where there are none, `types` says: the last
  `window`, or all.
  """
  types = c.get('layer_types', types)
  if odd := sorted({*types} - {LOCAL, GLOBAL}):
    raise errors.UserError(
      f'{c.where}: layer_types: {errors.unknown("value", odd[0], (LOCAL, GLOBAL))}'
    )
  if LOCAL in types and window is None:
    raise errors.UserError(
      f'{c.where}: layer_types has {LOCAL}, and sliding_window is null. Expected a number of '
      f'tokens.'
    )
  if len(types) != c['num_hidden_layers']:
    raise errors.UserError(
      f'{c.where}: layer_types has {len(types)} layers. Expected num_hidden_layers.'
    )
  return [seen(window if t == LOCAL else None) for t in types]


def types_of(m: Any) -> list[str]:
  """`layer_types` of a spec."""
  return [GLOBAL if b.mixer.mask.lookback is None else LOCAL for b in layers_of(m)]


def window_of(m: Any) -> int | None:
  """`sliding_window` of a spec, None where no layer has one."""
  return next((far + 1 for b in layers_of(m) if (far := b.mixer.mask.lookback) is not None), None)


def as_attention(m: Any) -> Any:
  """Return `m` with its first layer of attention in place of every layer, for functions that read
  its sizes.
  """
  block = next(b for b in layers_of(m) if hasattr(b.mixer, 'sizes'))
  return dataclasses.replace(m, segments=(Segment((block,), depth(m)),))
