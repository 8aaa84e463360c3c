"""Conversions between the tensors of checkpoints and tfm's parameters, as views where possible.

Checkpoints store a projection as `[out, in]`. tfm stores it with named axes, the inputs first
(`DNH`, `NHD`, `DF`).
"""

from collections.abc import Mapping, Sequence
import dataclasses
import math

import numpy as np

Shape = tuple[int, ...]

#: Module of tfm, or several that one tensor fuses -> module of the checkpoint.
Names = Mapping['str | tuple[str, ...]', 'str | Linear']

#: Parameter of a tfm module -> its name in checkpoints.
LEAVES = {
  'kernel': 'weight', 'blocks': 'weight', 'scale': 'weight', 'table': 'weight', 'types': 'weight',
  'bias': 'bias',
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Slot:
  """Place of an array in tfm's parameter tree.

  Attributes:
    path: path of the parameter.
    index: index of the array on the parameter's leading axes (layer, expert).
    shape: shape of the remaining axes.
    n_in: number of input axes of a kernel; 0 for other parameters.
  """

  path: str
  index: tuple[int, ...]
  shape: Shape
  n_in: int

  @property
  def matrix(self) -> Shape:
    """Shape as `[in, out]` for a kernel; the shape itself for other parameters."""
    if not self.n_in:
      return self.shape
    return math.prod(self.shape[: self.n_in]), math.prod(self.shape[self.n_in :])


@dataclasses.dataclass(frozen=True)
class Linear:
  """One module of the checkpoint for one module of tfm.

  Kernels are stored as `[out, in]`, biases with one axis, norms and tables as in tfm.

  Attributes:
    name: name of the module, with `*` for the number of the layer and a second `*` for the expert.
  """

  name: str

  @property
  def sliceable(self) -> bool:
    """Whether a slice of the tensor's first axis converts to the same slice of the parameter."""
    return False

  def tensor(self, leaf: str) -> str:
    """Return the name of the tensor that holds the parameter `leaf` of the module."""
    return f'{self.name}.{LEAVES.get(leaf, leaf)}'

  def expert(self, number: int) -> str:
    """Return the text that replaces the second `*`, for the expert `number`."""
    return str(number)

  def shape(self, slots: Sequence[Slot]) -> Shape:
    """Return the shape of the tensor."""
    (slot,) = slots
    if slot.n_in:
      return slot.matrix[::-1]
    return slot.shape if self._keeps(slot) else (math.prod(slot.shape),)

  def cut(self, tensor: np.ndarray, slots: Sequence[Slot]) -> list[np.ndarray]:
    """Split a tensor into tfm's arrays, one per slot."""
    (slot,) = slots
    return [(tensor.T if slot.n_in else tensor).reshape(slot.shape)]

  def join(self, arrays: Sequence[np.ndarray], slots: Sequence[Slot]) -> np.ndarray:
    """Join tfm's arrays into a tensor; the inverse of `cut`."""
    (slot,), (one,) = slots, arrays
    return one.reshape(slot.matrix).T if slot.n_in else one.reshape(self.shape(slots))

  def _keeps(self, slot: Slot) -> bool:
    return not slot.path.endswith('/bias')


@dataclasses.dataclass(frozen=True)
class SwappedHalves(Linear):
  """A projection to heads with swapped halves.

  The swap reverses the direction of a rotary embedding with layout 'halves'.
  """

  def cut(self, tensor: np.ndarray, slots: Sequence[Slot]) -> list[np.ndarray]:
    (one,) = super().cut(tensor, slots)
    return [np.roll(one, one.shape[-1] // 2, -1)]

  def join(self, arrays: Sequence[np.ndarray], slots: Sequence[Slot]) -> np.ndarray:
    (one,) = arrays
    return super().join([np.roll(one, one.shape[-1] // 2, -1)], slots)


@dataclasses.dataclass(frozen=True)
class Conv(Linear):
  """A kernel stored as `[in, out]`, as in tfm (GPT-2's Conv1D)."""

  def shape(self, slots: Sequence[Slot]) -> Shape:
    (slot,) = slots
    return slot.matrix if slot.n_in else super().shape(slots)

  def cut(self, tensor: np.ndarray, slots: Sequence[Slot]) -> list[np.ndarray]:
    (slot,) = slots
    return [tensor.reshape(slot.shape)]

  def join(self, arrays: Sequence[np.ndarray], slots: Sequence[Slot]) -> np.ndarray:
    return arrays[0].reshape(self.shape(slots))


@dataclasses.dataclass(frozen=True)
class Taps(Linear):
  """A convolution over tokens or pixels, stored as `[out, in, ...]`; tfm has outputs last."""

  def shape(self, slots: Sequence[Slot]) -> Shape:
    (slot,) = slots
    return (slot.shape[-1], *slot.shape[:-1]) if slot.n_in else super().shape(slots)

  def cut(self, tensor: np.ndarray, slots: Sequence[Slot]) -> list[np.ndarray]:
    return [np.moveaxis(tensor, 0, -1)]

  def join(self, arrays: Sequence[np.ndarray], slots: Sequence[Slot]) -> np.ndarray:
    return np.moveaxis(arrays[0], -1, 0)


@dataclasses.dataclass(frozen=True)
class Whole(Linear):
  """A tensor with this full name.

  Attributes:
    dims: shape of the tensor; None is the shape of the parameter.
  """

  dims: Shape | None = None

  def tensor(self, leaf: str) -> str:
    return self.name

  def shape(self, slots: Sequence[Slot]) -> Shape:
    return slots[0].shape if self.dims is None else self.dims

  def cut(self, tensor: np.ndarray, slots: Sequence[Slot]) -> list[np.ndarray]:
    return [tensor.reshape(slots[0].shape)]

  def join(self, arrays: Sequence[np.ndarray], slots: Sequence[Slot]) -> np.ndarray:
    return arrays[0].reshape(self.shape(slots))


@dataclasses.dataclass(frozen=True)
class Row(Whole):
  """A tensor with this full name and extra leading axes of size 1.

  Examples are the bias of BART's logits and the class token of ViT.

  Attributes:
    ones: number of the leading axes.
  """

  ones: int = 1

  def shape(self, slots: Sequence[Slot]) -> Shape:
    return *(1,) * self.ones, *slots[0].shape


@dataclasses.dataclass(frozen=True)
class Fused(Linear):
  """Several projections of tfm as one tensor, concatenated along the outputs.

  Attributes:
    conv: whether the tensor has its inputs first.
  """

  conv: bool = False

  def shape(self, slots: Sequence[Slot]) -> Shape:
    outs = sum(self._outs(s) for s in slots)
    if not slots[0].n_in:
      return (outs,)
    n_in = slots[0].matrix[0]
    return (n_in, outs) if self.conv else (outs, n_in)

  def cut(self, tensor: np.ndarray, slots: Sequence[Slot]) -> list[np.ndarray]:
    rows = tensor.T if self.conv else tensor
    return [self._as_param(part, s) for part, s in zip(self.parts(rows, slots), slots, strict=True)]

  def join(self, arrays: Sequence[np.ndarray], slots: Sequence[Slot]) -> np.ndarray:
    flat = []
    for one, s in zip(arrays, slots, strict=True):
      flat.append(one.reshape(s.matrix).T if s.n_in else one.reshape(-1))
    rows = self.fuse(flat, slots)
    return rows.T if self.conv else rows

  def parts(self, rows: np.ndarray, slots: Sequence[Slot]) -> list[np.ndarray]:
    """Split the tensor along its first axis, the outputs, into one part per projection."""
    ends = np.cumsum([self._outs(s) for s in slots])
    return np.split(rows, ends[:-1])

  def fuse(self, parts: Sequence[np.ndarray], slots: Sequence[Slot]) -> np.ndarray:
    """Concatenate the parts; the inverse of `parts`."""
    return np.concatenate(parts)

  @staticmethod
  def _outs(slot: Slot) -> int:
    return slot.matrix[-1] if slot.n_in else math.prod(slot.shape)

  @staticmethod
  def _as_param(rows: np.ndarray, slot: Slot) -> np.ndarray:
    return (rows.T if slot.n_in else rows).reshape(slot.shape)


@dataclasses.dataclass(frozen=True)
class InProj(Fused):
  """Fused q, k and v of PyTorch's `nn.MultiheadAttention`: `in_proj_weight`, `in_proj_bias`."""

  def tensor(self, leaf: str) -> str:
    return f'{self.name}_{LEAVES[leaf]}'


@dataclasses.dataclass(frozen=True)
class FusedHeads(Fused):
  """Fused q, k and v, grouped by key/value head (GPT-NeoX, BLOOM, Falcon).

  Each group is the queries of one key/value head, then its key and its value.
  """

  def parts(self, rows: np.ndarray, slots: Sequence[Slot]) -> list[np.ndarray]:
    q, k, _ = slots
    (N, H), K = q.shape[-2:], k.shape[-2]
    heads = rows.reshape(K, N // K + 2, H, *rows.shape[1:])
    pieces = heads[:, :-2], heads[:, -2], heads[:, -1]
    return [piece.reshape(-1, *rows.shape[1:]) for piece in pieces]

  def fuse(self, parts: Sequence[np.ndarray], slots: Sequence[Slot]) -> np.ndarray:
    q, k, _ = slots
    (N, H), K = q.shape[-2:], k.shape[-2]
    rest = parts[0].shape[1:]
    heads = [part.reshape(K, n, H, *rest) for part, n in zip(parts, (N // K, 1, 1), strict=True)]
    return np.concatenate(heads, axis=1).reshape(-1, *rest)


@dataclasses.dataclass(frozen=True)
class ByHead(Fused):
  """Fused projections with equal numbers of heads, grouped by head (DeepSeek)."""

  def parts(self, rows: np.ndarray, slots: Sequence[Slot]) -> list[np.ndarray]:
    N, sizes = slots[0].shape[-2], [s.shape[-1] for s in slots]
    heads = rows.reshape(N, sum(sizes), *rows.shape[1:])
    return [p.reshape(-1, *rows.shape[1:]) for p in np.split(heads, np.cumsum(sizes)[:-1], axis=1)]

  def fuse(self, parts: Sequence[np.ndarray], slots: Sequence[Slot]) -> np.ndarray:
    N, rest = slots[0].shape[-2], parts[0].shape[1:]
    return np.concatenate([p.reshape(N, -1, *rest) for p in parts], axis=1).reshape(-1, *rest)


@dataclasses.dataclass(frozen=True)
class ByGroup(Fused):
  """Fused projections with outputs interleaved in groups (Qwen3-Next).

  Unlike in `ByHead`, the projections may have different numbers of heads.

  Attributes:
    groups: number of groups.
  """

  groups: int = 1

  def parts(self, rows: np.ndarray, slots: Sequence[Slot]) -> list[np.ndarray]:
    grouped = rows.reshape(self.groups, -1, *rows.shape[1:])
    ends = np.cumsum([self._outs(s) // self.groups for s in slots])
    return [p.reshape(-1, *rows.shape[1:]) for p in np.split(grouped, ends[:-1], axis=1)]

  def fuse(self, parts: Sequence[np.ndarray], slots: Sequence[Slot]) -> np.ndarray:
    rest = parts[0].shape[1:]
    return np.concatenate([p.reshape(self.groups, -1, *rest) for p in parts], axis=1).reshape(
      -1, *rest
    )


@dataclasses.dataclass(frozen=True)
class Depthwise(Linear):
  """A depthwise convolution, stored as `[C, 1, P]`; tfm has `[P, C]`."""

  def tensor(self, leaf: str) -> str:
    return f'{self.name}.weight' if leaf == 'taps' else super().tensor(leaf)

  def shape(self, slots: Sequence[Slot]) -> Shape:
    shape = slots[0].shape
    return (shape[1], 1, shape[0]) if slots[0].path.endswith('/taps') else shape

  def cut(self, tensor: np.ndarray, slots: Sequence[Slot]) -> list[np.ndarray]:
    return [tensor[:, 0].T if tensor.ndim == 3 else tensor]

  def join(self, arrays: Sequence[np.ndarray], slots: Sequence[Slot]) -> np.ndarray:
    return arrays[0].T[:, None] if arrays[0].ndim == 2 else arrays[0]


@dataclasses.dataclass(frozen=True)
class Flat(Whole):
  """A tensor with this full name and one axis."""

  def shape(self, slots: Sequence[Slot]) -> Shape:
    return (math.prod(slots[0].shape),)


@dataclasses.dataclass(frozen=True)
class Stacked(Linear):
  """All experts of a layer in one tensor with this full name, stored as `[E, out, in]`.

  Attributes:
    conv: whether it is stored as `[E, in, out]`.
    interleaved: whether the outputs of several kernels alternate (GPT-OSS) instead of being
      concatenated.
    flat: whether experts and outputs share one axis (DBRX).
  """

  conv: bool = False
  interleaved: bool = False
  flat: bool = False

  @property
  def sliceable(self) -> bool:
    return not self.flat

  def tensor(self, leaf: str) -> str:
    return self.name

  def shape(self, slots: Sequence[Slot]) -> Shape:
    E, outs = slots[0].shape[0], sum(s.shape[-1] for s in slots)
    if not slots[0].n_in:
      return E, outs
    n_in = slots[0].shape[1]
    rows, columns = (n_in, outs) if self.conv else (outs, n_in)
    return (E * rows, columns) if self.flat else (E, rows, columns)

  def cut(self, tensor: np.ndarray, slots: Sequence[Slot]) -> list[np.ndarray]:
    tensor = tensor.reshape(slots[0].shape[0], -1, tensor.shape[-1]) if self.flat else tensor
    arrays = tensor if self.conv or not slots[0].n_in else np.swapaxes(tensor, 1, 2)
    if self.interleaved:
      return [arrays[..., i :: len(slots)] for i in range(len(slots))]
    ends = np.cumsum([s.shape[-1] for s in slots])
    return np.split(arrays, ends[:-1], axis=-1)

  def join(self, arrays: Sequence[np.ndarray], slots: Sequence[Slot]) -> np.ndarray:
    if self.interleaved:
      both = np.stack(arrays, -1).reshape(*arrays[0].shape[:-1], -1)
    else:
      both = np.concatenate(arrays, -1)
    both = both if self.conv or not slots[0].n_in else np.swapaxes(both, 1, 2)
    return both.reshape(self.shape(slots)) if self.flat else both


def layers_under(names: Names, prefix: str) -> Names:
  """Return the layer modules of `names` with tfm's paths under `prefix`, such as `mtp/`.

  Checkpoint names stay the same.
  """
  layers: dict[str | tuple[str, ...], str | Linear] = {}
  for key, rule in names.items():
    parts = (key,) if isinstance(key, str) else key
    if parts[0].startswith('*/'):
      prefixed = tuple(f'{prefix}{part}' for part in parts)
      layers[prefixed[0] if isinstance(key, str) else prefixed] = rule
  return layers


def renamed(names: Names, old: str, new: str) -> Names:
  """Return `names` with `old` replaced by `new` in all checkpoint names.

  Args:
    names: modules of tfm and their names in checkpoints.
    old: text to replace.
    new: replacement.

  Returns:
    The same modules under the new names.
  """
  changed: dict[str | tuple[str, ...], str | Linear] = {}
  for key, rule in names.items():
    if isinstance(rule, str):
      changed[key] = rule.replace(old, new)
    else:
      changed[key] = dataclasses.replace(rule, name=rule.name.replace(old, new))
  return changed
