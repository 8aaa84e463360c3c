"""Tensors of a checkpoint into parameters on their devices, a few megabytes at a time."""

from collections.abc import Sequence
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
import numpy as np

from tfm.data.progress import Progress
from tfm.hub.tensors import Tensors
from tfm.model import transformer
from tfm.model.spec import Model
from tfm.train import shard
from tfm.train.mesh import RULES
from tfm.zoo.weights.family import Tensor

#: Bytes that are on their way at a time.
_CHUNK = 8 << 20


def fill_params(
  spec: Model,
  tensor_map: Sequence[Tensor],
  tensors: Tensors,
  dtype: Any | None,
  mesh: jax.sharding.Mesh | None,
) -> Any:
  """The parameters of `spec`, in `dtype` (None: each in the checkpoint's own), split over `mesh`
  (None: one device).

  *Cost*: beside what stays on the devices of this process, a few chunks of one tensor at a time; of
  a quantized one what is dequantized at a time, a matrix (`tfm.hub.quantized`). Parameters of less
  than a chunk are put together first."""
  shapes, letters = transformer.param_shapes(spec), transformer.param_letters(spec)
  where = shard.placed(mesh, RULES, letters, shapes)
  named = lambda tree: {
    jax.tree_util.keystr(p, simple=True, separator='/'): x for p, x in _leaves(tree)
  }
  sharding, shape = named(where), named(shapes)
  filled: dict[str, Any] = {}
  with Progress('reading weights', sum(tensors.nbytes(t.name) for t in tensor_map)) as bar:
    for tensor in tensor_map:
      for path in {s.path for s in tensor.slots} - set(filled):
        whole, kind = shape[path].shape, jnp.dtype(dtype or tensors.dtype(tensor.name))
        small = math.prod(whole) * kind.itemsize <= _CHUNK
        filled[path] = np.empty(whole, kind) if small else _empty(whole, kind, sharding[path])
      first = 0
      for theirs in tensors.chunks(tensor.name) if tensor.rule.apart else [tensors[tensor.name]]:
        _take(filled, tensor, theirs, first)
        first += theirs.shape[0] if theirs.ndim else 0
        bar.advance(theirs.nbytes)
        del theirs  # before the next one is made
      tensors.release(tensor.name)
  arrays = [_whole(filled[name], sharding[name]) for name in shape]
  return jax.tree.unflatten(jax.tree.structure(shapes), arrays)


def _take(filled: dict[str, Any], tensor: Tensor, theirs: np.ndarray, first: int) -> None:
  """Puts `theirs`, a tensor from `first` on, into what is filled with it."""
  for slot, part in zip(tensor.slots, tensor.rule.cut(theirs, tensor.slots), strict=True):
    filled[slot.path] = _filled(filled[slot.path], part, slot.index, first)
  # Else parts wait for their turn to be put, all of them in memory.
  jax.block_until_ready([filled[s.path] for s in tensor.slots])


def _filled(buffer: Any, part: np.ndarray, index: tuple[int, ...], first: int) -> Any:
  """`buffer` with `part` from `first` on, in what is at `index` of its leading axes."""
  if not isinstance(buffer, np.ndarray):
    return _put(buffer, part, index, first)
  rows = (slice(first, first + len(part)),) if part.ndim else ()
  buffer[(*index, *rows)] = part
  return buffer


def _whole(array: Any, sharding: Any) -> jax.Array:
  """A parameter on its devices."""
  if isinstance(array, jax.Array):
    return array
  return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def _leaves(tree: Any) -> Any:
  return jax.tree_util.tree_leaves_with_path(
    tree, is_leaf=lambda x: isinstance(x, jax.sharding.Sharding)
  )


def _empty(shape: tuple[int, ...], dtype: Any, sharding: Any) -> jax.Array:
  return jax.jit(lambda: jnp.zeros(shape, dtype), out_shardings=sharding)()


def _put(buffer: jax.Array, part: np.ndarray, index: tuple[int, ...], first: int = 0) -> jax.Array:
  """As `_filled`, on devices; a part of many bytes goes by pieces of its first axis."""
  rows = part.shape[0] if part.ndim else 1
  step = max(1, min(rows, _CHUNK * rows // max(1, part.size * buffer.dtype.itemsize)))
  for start in range(0, rows, step):
    piece = part[start : start + step] if part.ndim else part
    at = (*index, first + start, *(0,) * (part.ndim - 1)) if part.ndim else index
    lead = (1,) * len(index)
    chunk = _placed(buffer.sharding, (*lead, *piece.shape), piece, buffer.dtype)
    buffer = _updated(buffer, chunk, np.asarray(at, np.int32))
  return buffer


def _placed(sharding: Any, shape: tuple[int, ...], piece: np.ndarray, dtype: Any) -> jax.Array:
  """A piece on the devices, split like the whole along the axes that are whole in it."""
  if isinstance(sharding, NamedSharding):
    axes = [*sharding.spec, *(None,) * (len(shape) - len(sharding.spec))]
    ways = [math.prod(sharding.mesh.shape[n] for n in _names(a)) for a in axes]
    kept = [a if n % w == 0 else None for a, n, w in zip(axes, shape, ways, strict=True)]
    sharding = NamedSharding(sharding.mesh, PartitionSpec(*kept))
  view = piece.reshape(shape)
  return jax.make_array_from_callback(
    shape, sharding, lambda i: np.ascontiguousarray(view[i], dtype=dtype)
  )


def _names(axis: Any) -> tuple[str, ...]:
  return () if axis is None else (axis,) if isinstance(axis, str) else tuple(axis)


@functools.partial(jax.jit, donate_argnums=0)
def _updated(buffer: jax.Array, chunk: jax.Array, at: jax.Array) -> jax.Array:
  return jax.lax.dynamic_update_slice(buffer, chunk, [at[i] for i in range(buffer.ndim)])
