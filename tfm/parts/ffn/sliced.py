"""A feed-forward network with a backward pass over slices of its hidden layer."""

from collections.abc import Callable
import functools
import math
from typing import Any, NamedTuple

from flax import struct
import jax
import jax.numpy as jnp

from tfm.core.axes import device_count, mesh_axes
from tfm.parts.contract import contract
from tfm.parts.grouped import grouped_product

#: `(gate, up) -> hidden`, for each element.
Hidden = Callable[[jax.Array, jax.Array], jax.Array]

#: The weights of gate, input and output, `[(E,) D, F]`, `[(E,) D, F]` and `[(E,) F, D]`.
Weights = tuple[jax.Array, jax.Array, jax.Array]

#: The mesh axes that split each axis of the three weights, for a function over the local arrays.
Places = tuple[jax.P, jax.P, jax.P]


@struct.dataclass
class SplitWeight:
  """The local part of a weight in a function over the local arrays of a mesh.

  Attributes:
    array: the part on this device.
    place: the mesh axes that split each axis, and are gathered before use.
  """

  array: jax.Array
  place: jax.P = struct.field(pytree_node=False)

  @property
  def shape(self) -> tuple[int, ...]:
    """The shape of the local part."""
    return self.array.shape


def gather(x: jax.Array, place: jax.P) -> jax.Array:
  """Return a local array gathered along the mesh axes of `place`."""
  for axis, names in enumerate(place):
    x = jax.lax.all_gather(x, names, axis=axis, tiled=True) if names else x
  return x


#: A hidden layer of more bytes on a device is sliced, by default into slices of about this size.
SLICE_BYTES = 2**26
_MOST = 8


def slice_count(tokens: int, units: int, dtype: Any, given: int | None) -> int:
  """Return the number of slices of a hidden layer.

  Args:
    tokens: the number of tokens on a device.
    units: the number of hidden units on a device.
    dtype: the dtype of the hidden layer.
    given: the number that was asked for. None: by the bytes of the hidden layer, up to 8.

  Returns:
    The least number from there on that divides the units, or 1.
  """
  if given is None:
    given = min(-(-tokens * units * jnp.dtype(dtype).itemsize // SLICE_BYTES), _MOST)
  return next((n for n in range(max(given, 1), 2 * given + 1) if units % n == 0), 1)


def on_device(batch: tuple[int, int], width: int) -> tuple[int, int]:
  """Return the tokens and the hidden units on a device, of a batch `[B, T]` and all units."""
  ways = _ways('BTF', (*batch, width))
  return math.prod(batch) // (ways[0] * ways[1]), width // ways[2]


def _ways(letters: str, shape: tuple[int, ...]) -> list[int]:
  """Return the number of devices that split each axis of an array under the rules in force."""
  return [device_count(names) for names in mesh_axes(letters, shape)]


class Slicing(NamedTuple):
  """The static arguments of `sliced_glu`.

  Attributes:
    hidden: the hidden layer of a gate and an input.
    slices: the number of slices, which divides the hidden units of a device.
    places: the mesh axes along which each slice of local weights is gathered. None: none.
  """

  hidden: Hidden
  slices: int
  places: Places | None = None


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def sliced_glu(
  slicing: Slicing,
  x: jax.Array,
  weights: Weights,
  sizes_E: jax.Array | None = None,
  scale_r1: jax.Array | None = None,
) -> jax.Array:
  """Return (hidden(x Wg, x Wu) scale) Wd, with a backward pass that recomputes the hidden layer.

  The backward pass recomputes a slice of the hidden layer, and computes the gradients of that slice
  of the weights before the next slice. Inside a rematerialised layer this repeats no product. If
  devices split the hidden layer, a slice takes units of every device.

  Args:
    slicing: the hidden layer and its slices.
    x: the input, `[B, T, D]`; for experts `[rows, D]`, ordered by expert.
    weights: the weights of gate, input and output, with a leading axis E for experts.
    sizes_E: the number of rows of each expert. None: there are no experts.
    scale_r1: a factor for each row. None: 1.

  Returns:
    The output, in the shape of `x`.
  """
  return _glu(slicing, sizes_E, x, weights, scale_r1)


def _glu(
  slicing: Slicing,
  sizes_E: jax.Array | None,
  x: jax.Array,
  weights: Weights,
  scale_r1: jax.Array | None,
) -> jax.Array:
  places = slicing.places
  gate, up, down = weights if places is None else map(gather, weights, places)
  product = contract if sizes_E is None else functools.partial(_grouped, sizes_E)
  h = slicing.hidden(product(x, gate), product(x, up))
  return product(h if scale_r1 is None else h * scale_r1, down)


def _grouped(sizes_E: jax.Array, x_ri: jax.Array, w_Eio: jax.Array) -> jax.Array:
  return grouped_product(x_ri, w_Eio, sizes_E)


def _forward(slicing, x, weights, sizes_E, scale_r1):
  y = _glu(slicing, sizes_E, x, weights, scale_r1)
  return y, (x, weights, sizes_E, scale_r1)


def _backward(slicing, residuals, dy):
  x, weights, sizes_E, scale_r1 = residuals
  ways = _ways('BTF', (*x.shape[:2], weights[0].shape[1]))[2] if sizes_E is None else 1
  axes = (1, 1, 0) if sizes_E is None else (2, 2, 1)
  views = tuple(_view(w, axis, ways) for w, axis in zip(weights, axes, strict=True))
  width = views[0].shape[-1] // slicing.slices

  def body(j: jax.Array, sums: Any) -> Any:
    (dx, dscale_r1), grads = sums
    cut = lambda w, axis: jax.lax.dynamic_slice_in_dim(w, j * width, width, axis + 1)
    cuts = tuple(map(cut, views, axes))
    merged = tuple(_merge(w, axis) for w, axis in zip(cuts, axes, strict=True))
    _, pull = jax.vjp(functools.partial(_glu, slicing, sizes_E), x, merged, scale_r1)
    dx_part, parts, scale_part = pull(dy)
    put = lambda w, dw, c, axis: jax.lax.dynamic_update_slice_in_dim(
      w, dw.reshape(c.shape), j * width, axis + 1
    )
    sums = jax.tree.map(jnp.add, (dx, dscale_r1), (dx_part, scale_part))
    return sums, tuple(map(put, grads, parts, cuts, axes))

  start = jax.tree.map(jnp.zeros_like, ((x, scale_r1), views))
  (dx, dscale_r1), grads = jax.lax.fori_loop(0, slicing.slices, body, start)
  shaped = tuple(g.reshape(w.shape) for g, w in zip(grads, weights, strict=True))
  return dx, shaped, None, dscale_r1


sliced_glu.defvjp(_forward, _backward)


def _view(w: jax.Array, axis: int, ways: int) -> jax.Array:
  """Return a weight with its hidden axis split into (devices, units of each)."""
  return w.reshape(*w.shape[:axis], ways, w.shape[axis] // ways, *w.shape[axis + 1 :])


def _merge(w: jax.Array, axis: int) -> jax.Array:
  """Return a weight with (devices, units of each) merged into one axis."""
  return w.reshape(*w.shape[:axis], -1, *w.shape[axis + 2 :])
