"""Copy the tensors of a checkpoint to parameters on their devices, in small chunks."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
import functools
import math
import sys
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike
import numpy as np

from tfm.data.progress import Progress
from tfm.hub.finite import is_finite
from tfm.hub.tensors import Tensors
from tfm.model import transformer
from tfm.model.spec import Model
from tfm.train import shard
from tfm.train.mesh import RULES
from tfm.zoo.weights.family import Tensor

#: Bytes of a chunk that is copied to the devices at a time.
_CHUNK = 8 << 20


def fill_params(
  spec: Model,
  tensor_map: Sequence[Tensor],
  tensors: Tensors,
  dtype: DTypeLike | None,
  mesh: jax.sharding.Mesh | None,
  where: str = 'weights',
) -> Any:
  """Return the parameters of a model, filled from the tensors of a checkpoint.

  Peak host memory is a few chunks (8 MiB) of one tensor, or one dequantized matrix of a quantized
  tensor. Parameters smaller than a chunk are assembled on the host.

  Args:
    spec: The architecture.
    tensor_map: The tensors of all parameters, under their names in the checkpoint.
    tensors: The tensors of the checkpoint.
    dtype: The dtype of the parameters. None keeps the dtype of each tensor.
    mesh: The mesh over which the parameters are sharded. None places them on one device.
    where: The path of the checkpoint. Tensors with NaN or infinite numbers are reported under it on
      stderr.

  Returns:
    The tree of parameters.
  """
  shapes, letters = transformer.param_shapes(spec), transformer.param_letters(spec)
  sharding = _by_path(shard.placed(mesh, RULES, letters, shapes))
  shape = _by_path(shapes)
  filled: dict[str, Any] = {}
  broken: dict[str, None] = {}
  size = sum(tensors.nbytes(t.name) for t in tensor_map)
  with ThreadPoolExecutor(1) as checker, Progress('reading weights', size) as bar:
    for tensor in tensor_map:
      for path in {s.path for s in tensor.slots} - set(filled):
        full, kind = shape[path].shape, jnp.dtype(dtype or tensors.dtype(tensor.name))
        small = math.prod(full) * kind.itemsize <= _CHUNK
        filled[path] = np.empty(full, kind) if small else _zeros(full, kind, sharding[path])
      first = 0
      for chunk in tensors.chunks(tensor.name) if tensor.rule.sliceable else [tensors[tensor.name]]:
        finite = checker.submit(is_finite, chunk)  # At the same time as the copy.
        _copy_chunk(filled, tensor, chunk, first)
        if not finite.result():
          broken.setdefault(tensor.name)
        first += chunk.shape[0] if chunk.ndim else 0
        bar.advance(chunk.nbytes)
        del chunk  # Free it before the next one is read.
      tensors.release(tensor.name)
  if broken:
    print(_not_finite(where, [*broken]), file=sys.stderr)
  arrays = [_on_devices(filled[name], sharding[name]) for name in shape]
  return jax.tree.unflatten(jax.tree.structure(shapes), arrays)


def _not_finite(where: str, names: Sequence[str]) -> str:
  """Return the text of the warning about tensors with NaN or infinite numbers."""
  more = f' and {len(names) - 1} more' if len(names) > 1 else ''
  return (
    f'{where}: NaN or infinite numbers in {names[0]}{more}; outputs may be NaN. '
    'Expected finite weights: download or convert them again.'
  )


def _copy_chunk(filled: dict[str, Any], tensor: Tensor, chunk: np.ndarray, first: int) -> None:
  """Copy rows of a tensor, starting at row `first`, to its parameters."""
  for slot, part in zip(tensor.slots, tensor.rule.cut(chunk, tensor.slots), strict=True):
    filled[slot.path] = _filled(filled[slot.path], part, slot.index, first)
  # Without blocking, all queued parts would stay in host memory.
  jax.block_until_ready([filled[s.path] for s in tensor.slots])


def _filled(buffer: Any, part: np.ndarray, index: tuple[int, ...], first: int) -> Any:
  """Return a buffer with `part` at `index` of the leading axes, starting at row `first`."""
  if not isinstance(buffer, np.ndarray):
    return _put(buffer, part, index, first)
  rows = (slice(first, first + len(part)),) if part.ndim else ()
  buffer[(*index, *rows)] = part
  return buffer


def _on_devices(array: Any, sharding: Any) -> jax.Array:
  """Return a parameter on its devices."""
  if isinstance(array, jax.Array):
    return array
  return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def _by_path(tree: Any) -> dict[str, Any]:
  is_leaf = lambda x: isinstance(x, jax.sharding.Sharding)
  pairs = jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_leaf)
  return {jax.tree_util.keystr(path, simple=True, separator='/'): x for path, x in pairs}


def _zeros(shape: tuple[int, ...], dtype: DTypeLike, sharding: Any) -> jax.Array:
  return jax.jit(lambda: jnp.zeros(shape, dtype), out_shardings=sharding)()


def _put(buffer: jax.Array, part: np.ndarray, index: tuple[int, ...], first: int = 0) -> jax.Array:
  """Do the same as `_filled` for a buffer on devices, in pieces along the first axis."""
  rows = part.shape[0] if part.ndim else 1
  step = max(1, min(rows, _CHUNK * rows // max(1, part.size * buffer.dtype.itemsize)))
  for start in range(0, rows, step):
    piece = part[start : start + step] if part.ndim else part
    at = (*index, first + start, *(0,) * (part.ndim - 1)) if part.ndim else index
    lead = (1,) * len(index)
    chunk = _placed(buffer.sharding, (*lead, *piece.shape), piece, buffer.dtype)
    buffer = _updated(buffer, chunk, np.asarray(at, np.int32))
  return buffer


def _placed(
  sharding: Any, shape: tuple[int, ...], piece: np.ndarray, dtype: DTypeLike
) -> jax.Array:
  """Return a piece on the devices, sharded like the buffer along axes that divide evenly."""
  if isinstance(sharding, NamedSharding):
    axes = [*sharding.spec, *(None,) * (len(shape) - len(sharding.spec))]
    kept = [_if_even(sharding.mesh, axis, n) for axis, n in zip(axes, shape, strict=True)]
    sharding = NamedSharding(sharding.mesh, PartitionSpec(*kept))
  view = piece.reshape(shape)
  return jax.make_array_from_callback(
    shape, sharding, lambda i: np.ascontiguousarray(view[i], dtype=dtype)
  )


def _if_even(mesh: Mesh | AbstractMesh, axis: Any, n: int) -> Any:
  """Return mesh axes, or None if their devices do not divide n evenly."""
  devices = math.prod(mesh.shape[name] for name in _names(axis))
  return axis if n % devices == 0 else None


def _names(axis: Any) -> tuple[str, ...]:
  if axis is None:
    return ()
  return (axis,) if isinstance(axis, str) else tuple(axis)


@functools.partial(jax.jit, donate_argnums=0)
def _updated(buffer: jax.Array, chunk: jax.Array, at: jax.Array) -> jax.Array:
  return jax.lax.dynamic_update_slice(buffer, chunk, [at[i] for i in range(buffer.ndim)])
