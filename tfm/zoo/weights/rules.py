"""How a tensor of theirs is cut into parameters of ours, and joined from them again; all of it
views, where it can be.

Theirs keep a projection as `[out, in]`, ours as its named axes with the inputs first (`DNH`, `NHD`,
`DF`)."""

from collections.abc import Mapping, Sequence
import dataclasses
import math

import numpy as np

Shape = tuple[int, ...]

#: Modules of ours (several: together they are one of theirs) -> a module of theirs.
Names = Mapping['str | tuple[str, ...]', 'str | Linear']

#: What theirs call the parameters of a module, by what ours do.
LEAVES = {
  'kernel': 'weight', 'blocks': 'weight', 'scale': 'weight', 'table': 'weight', 'types': 'weight',
  'bias': 'bias',
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Slot:
  """The place of an array in our tree: its path, the index on its leading axes (layer, expert), the
  shape of the rest.

  `n_in` is how many axes of a kernel are inputs, 0 for what is no kernel.
  """

  path: str
  index: tuple[int, ...]
  shape: Shape
  n_in: int

  @property
  def matrix(self) -> Shape:
    """The shape as `[in, out]`; of what is no kernel, as it is in a checkpoint of theirs."""
    if not self.n_in:
      return self.shape
    return math.prod(self.shape[: self.n_in]), math.prod(self.shape[self.n_in :])


@dataclasses.dataclass(frozen=True)
class Linear:
  """One module of theirs for one of ours: `[out, in]` for kernels, as they are for norms and
  tables, flat biases.

  `name` has a `*` for the number of the layer, and a second one for that of the expert.
  """

  name: str

  @property
  def apart(self) -> bool:
    """Whether a part of the first axis of theirs is cut into the same part of that of ours, and
    into nothing else.
    """
    return False

  def tensor(self, leaf: str) -> str:
    """The name of the tensor that holds our parameter `leaf` of the module."""
    return f'{self.name}.{LEAVES.get(leaf, leaf)}'

  def expert(self, number: int) -> str:
    """Return what stands for the second `*`."""
    return str(number)

  def shape(self, slots: Sequence[Slot]) -> Shape:
    """The shape of theirs."""
    (slot,) = slots
    if slot.n_in:
      return slot.matrix[::-1]
    return slot.shape if self._keeps(slot) else (math.prod(slot.shape),)

  def cut(self, theirs: np.ndarray, slots: Sequence[Slot]) -> list[np.ndarray]:
    """Ours."""
    (slot,) = slots
    return [(theirs.T if slot.n_in else theirs).reshape(slot.shape)]

  def join(self, ours: Sequence[np.ndarray], slots: Sequence[Slot]) -> np.ndarray:
    """Theirs."""
    (slot,), (one,) = slots, ours
    return one.reshape(slot.matrix).T if slot.n_in else one.reshape(self.shape(slots))

  def _keeps(self, slot: Slot) -> bool:
    return not slot.path.endswith('/bias')


@dataclasses.dataclass(frozen=True)
class SwappedHalves(Linear):
  """A projection to heads whose halves are swapped, which reverses the direction of a rotation of
  halves.
  """

  def cut(self, theirs, slots):
    (one,) = super().cut(theirs, slots)
    return [np.roll(one, one.shape[-1] // 2, -1)]

  def join(self, ours, slots):
    (one,) = ours
    return super().join([np.roll(one, one.shape[-1] // 2, -1)], slots)


@dataclasses.dataclass(frozen=True)
class Conv(Linear):
  """A kernel that theirs keep as `[in, out]` too (GPT-2's Conv1D)."""

  def shape(self, slots):
    (slot,) = slots
    return slot.matrix if slot.n_in else super().shape(slots)

  def cut(self, theirs, slots):
    (slot,) = slots
    return [theirs.reshape(slot.shape)]

  def join(self, ours, slots):
    return ours[0].reshape(self.shape(slots))


@dataclasses.dataclass(frozen=True)
class Taps(Linear):
  """A convolution over tokens or pixels: theirs is `[out, in, ...]`, ours has its outputs last."""

  def shape(self, slots):
    (slot,) = slots
    return (slot.shape[-1], *slot.shape[:-1]) if slot.n_in else super().shape(slots)

  def cut(self, theirs, slots):
    return [np.moveaxis(theirs, 0, -1)]

  def join(self, ours, slots):
    return np.moveaxis(ours[0], -1, 0)


@dataclasses.dataclass(frozen=True)
class Whole(Linear):
  """A tensor of that full name, in our shape or, where they differ, in `dims`."""

  dims: Shape | None = None

  def tensor(self, leaf):
    return self.name

  def shape(self, slots):
    return slots[0].shape if self.dims is None else self.dims

  def cut(self, theirs, slots):
    return [theirs.reshape(slots[0].shape)]

  def join(self, ours, slots):
    return ours[0].reshape(self.shape(slots))


@dataclasses.dataclass(frozen=True)
class Row(Whole):
  """A tensor of that full name with `ones` leading axes of size 1 (BART's bias of the logits, ViT's
  class token).
  """

  ones: int = 1

  def shape(self, slots):
    return *(1,) * self.ones, *slots[0].shape


@dataclasses.dataclass(frozen=True)
class Fused(Linear):
  """Several projections of ours as one of theirs, one after the other along its outputs; `conv`
  keeps inputs first.
  """

  conv: bool = False

  def shape(self, slots):
    outs = sum(self._outs(s) for s in slots)
    if not slots[0].n_in:
      return (outs,)
    n_in = slots[0].matrix[0]
    return (n_in, outs) if self.conv else (outs, n_in)

  def cut(self, theirs, slots):
    rows = theirs.T if self.conv else theirs
    return [self._ours(part, s) for part, s in zip(self.parts(rows, slots), slots, strict=True)]

  def join(self, ours, slots):
    flat = [
      one.reshape(s.matrix).T if s.n_in else one.reshape(-1)
      for one, s in zip(ours, slots, strict=True)
    ]
    rows = self.fuse(flat, slots)
    return rows.T if self.conv else rows

  def parts(self, rows: np.ndarray, slots: Sequence[Slot]) -> list[np.ndarray]:
    """The outputs (first axis) of each projection."""
    ends = np.cumsum([self._outs(s) for s in slots])
    return np.split(rows, ends[:-1])

  def fuse(self, parts: Sequence[np.ndarray], slots: Sequence[Slot]) -> np.ndarray:
    """Undoes `parts`."""
    return np.concatenate(parts)

  @staticmethod
  def _outs(slot: Slot) -> int:
    return slot.matrix[-1] if slot.n_in else math.prod(slot.shape)

  @staticmethod
  def _ours(rows: np.ndarray, slot: Slot) -> np.ndarray:
    return (rows.T if slot.n_in else rows).reshape(slot.shape)


@dataclasses.dataclass(frozen=True)
class InProj(Fused):
  """q, k and v fused under PyTorch's names in `nn.MultiheadAttention`: `in_proj_weight`,
  `in_proj_bias`.
  """

  def tensor(self, leaf):
    return f'{self.name}_{LEAVES[leaf]}'


@dataclasses.dataclass(frozen=True)
class FusedHeads(Fused):
  """q, k, v fused a key head at a time: its query heads, its key, its value (GPT-NeoX, BLOOM,
  Falcon).
  """

  def parts(self, rows, slots):
    q, k, _ = slots
    (N, H), K = q.shape[-2:], k.shape[-2]
    heads = rows.reshape(K, N // K + 2, H, *rows.shape[1:])
    pieces = heads[:, :-2], heads[:, -2], heads[:, -1]
    return [piece.reshape(-1, *rows.shape[1:]) for piece in pieces]

  def fuse(self, parts, slots):
    q, k, _ = slots
    (N, H), K = q.shape[-2:], k.shape[-2]
    rest = parts[0].shape[1:]
    heads = [part.reshape(K, n, H, *rest) for part, n in zip(parts, (N // K, 1, 1), strict=True)]
    return np.concatenate(heads, axis=1).reshape(-1, *rest)


@dataclasses.dataclass(frozen=True)
class ByHead(Fused):
  """Projections to as many heads, fused a head at a time: its numbers of the first, of the second
  (DeepSeek).
  """

  def parts(self, rows, slots):
    N, sizes = slots[0].shape[-2], [s.shape[-1] for s in slots]
    heads = rows.reshape(N, sum(sizes), *rows.shape[1:])
    return [p.reshape(-1, *rows.shape[1:]) for p in np.split(heads, np.cumsum(sizes)[:-1], axis=1)]

  def fuse(self, parts, slots):
    N, rest = slots[0].shape[-2], parts[0].shape[1:]
    return np.concatenate([p.reshape(N, -1, *rest) for p in parts], axis=1).reshape(-1, *rest)


@dataclasses.dataclass(frozen=True)
class ByGroup(Fused):
  """Projections fused a group of their outputs at a time, for `groups` groups: those of the first,
  then the second.

  Unlike in `ByHead`, the projections may have different numbers of heads (Qwen3-Next).
  """

  groups: int = 1

  def parts(self, rows, slots):
    grouped = rows.reshape(self.groups, -1, *rows.shape[1:])
    ends = np.cumsum([self._outs(s) // self.groups for s in slots])
    return [p.reshape(-1, *rows.shape[1:]) for p in np.split(grouped, ends[:-1], axis=1)]

  def fuse(self, parts, slots):
    rest = parts[0].shape[1:]
    return np.concatenate([p.reshape(self.groups, -1, *rest) for p in parts], axis=1).reshape(
      -1, *rest
    )


@dataclasses.dataclass(frozen=True)
class Depthwise(Linear):
  """A convolution of each channel by itself: theirs is `[C, 1, P]`, ours `[P, C]`."""

  def tensor(self, leaf):
    return f'{self.name}.weight' if leaf == 'taps' else super().tensor(leaf)

  def shape(self, slots):
    shape = slots[0].shape
    return (shape[1], 1, shape[0]) if slots[0].path.endswith('/taps') else shape

  def cut(self, theirs, slots):
    return [theirs[:, 0].T if theirs.ndim == 3 else theirs]

  def join(self, ours, slots):
    return ours[0].T[:, None] if ours[0].ndim == 2 else ours[0]


@dataclasses.dataclass(frozen=True)
class Flat(Whole):
  """A tensor of that full name with a single axis."""

  def shape(self, slots):
    return (math.prod(slots[0].shape),)


@dataclasses.dataclass(frozen=True)
class Stacked(Linear):
  """A tensor of that full name with all experts of a layer: `[E, out, in]`, or `[E, in, out]` with
  `conv`.

  Of several kernels of ours the outputs stand one after the other or, if `interleaved`, in turns
  (GPT-OSS). `flat` is without the axis of the experts: the rows of each in turn (DBRX)."""

  conv: bool = False
  interleaved: bool = False
  flat: bool = False

  @property
  def apart(self):
    return not self.flat

  def tensor(self, leaf):
    return self.name

  def shape(self, slots):
    E, outs = slots[0].shape[0], sum(s.shape[-1] for s in slots)
    if not slots[0].n_in:
      return E, outs
    n_in = slots[0].shape[1]
    rows, columns = (n_in, outs) if self.conv else (outs, n_in)
    return (E * rows, columns) if self.flat else (E, rows, columns)

  def cut(self, theirs, slots):
    theirs = theirs.reshape(slots[0].shape[0], -1, theirs.shape[-1]) if self.flat else theirs
    ours = theirs if self.conv or not slots[0].n_in else np.swapaxes(theirs, 1, 2)
    if self.interleaved:
      return [ours[..., i :: len(slots)] for i in range(len(slots))]
    ends = np.cumsum([s.shape[-1] for s in slots])
    return np.split(ours, ends[:-1], axis=-1)

  def join(self, ours, slots):
    if self.interleaved:
      both = np.stack(ours, -1).reshape(*ours[0].shape[:-1], -1)
    else:
      both = np.concatenate(ours, -1)
    both = both if self.conv or not slots[0].n_in else np.swapaxes(both, 1, 2)
    return both.reshape(self.shape(slots)) if self.flat else both


def also(names: Names, prefix: str) -> Names:
  """The same modules of every layer where ours stand under `prefix` (`mtp/`), under the same names."""
  ours = lambda key: (
    f'{prefix}{key}' if isinstance(key, str) else tuple(f'{prefix}{part}' for part in key)
  )
  layers = {
    key: theirs
    for key, theirs in names.items()
    if (key if isinstance(key, str) else key[0]).startswith('*/')
  }
  return {ours(key): theirs for key, theirs in layers.items()}


def renamed(names: Names, old: str, new: str) -> Names:
  """The same modules under names of theirs in which `new` stands for `old`."""
  changed = lambda theirs: theirs.replace(old, new)
  return {
    ours: changed(theirs)
    if isinstance(theirs, str)
    else dataclasses.replace(theirs, name=changed(theirs.name))
    for ours, theirs in names.items()
  }
