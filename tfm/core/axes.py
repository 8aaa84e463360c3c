"""Letters of array axes, for name suffixes, einsums and sharding rules."""

from collections.abc import Callable, Sequence
import math
from typing import Any

from flax import linen as nn
import jax

#: The letter of an axis, and the word for it.
AXES = {
    'B': 'batch', 'T': 'query time', 'S': 'key time', 'D': 'model', 'N': 'query heads',
    'K': 'kv heads',
    'G': 'queries a kv head, or gates', 'M': 'query rows of a kv head', 'H': 'head dim', 'F': 'ffn',
    'E': 'experts', 'C': 'channels, or choices of experts', 'V': 'vocab', 'L': 'layers',
    'R': 'latent',
    'P': 'positions, or sides of patches', 'Y': 'token types', 'U': 'buckets',
}  # fmt: skip


def sharded(init: Callable[..., jax.Array], letters: str) -> Callable[..., Any]:
  """Return an initializer that labels its result with the letters of its axes.

  `tfm.train.shard` maps letters to mesh axes by one table of rules. No other code names mesh axes.

  Args:
    init: An initializer, as in `flax.linen.initializers`.
    letters: A letter for each axis, such as 'DNH'.

  Returns:
    An initializer that returns a boxed array (`nn.LogicallyPartitioned`).
  """
  bad = [c for c in letters if c not in AXES]
  assert not bad, f'{letters!r}: {bad} are not letters of the alphabet {sorted(AXES)}'
  return nn.with_logical_partitioning(init, tuple(letters))


def stacked(boxed: Any) -> Any:
  """Return parameters of layers stacked by `vmap`, with the letter L for the new first axis."""
  is_box = lambda x: isinstance(x, nn.Partitioned)
  return jax.tree.map(lambda b: b.replace(names=('L', *b.names)), boxed, is_leaf=is_box)


def constrained(x: jax.Array, letters: str) -> jax.Array:
  """Return x with a sharding constraint by the rules in force.

  Args:
    x: An array.
    letters: A letter for each axis; '-' leaves an axis unsharded.

  Returns:
    The constrained array, or x itself where no rules are in force.
  """
  unsharded = {'-': None}
  return nn.with_logical_constraint(x, tuple(unsharded.get(c, c) for c in letters))


def mesh_axes(letters: str, shape: tuple[int, ...]) -> tuple[tuple[str, ...], ...]:
  """Return the mesh axes that split each axis of an array under the rules in force.

  Args:
    letters: A letter for each axis.
    shape: The shape of the array.

  Returns:
    The names of mesh axes with more than one device, for each axis; `()` for axes that stay whole.
  """
  mesh = jax.sharding.get_abstract_mesh()
  rules: dict[str, Any] = dict(nn.get_logical_axis_rules())
  found: list[tuple[str, ...]] = []
  for letter, size in zip(letters, shape, strict=True):
    used = {name for names in found for name in names}
    names = tuple(n for n in rules.get(letter, ()) if n not in used and mesh.shape[n] > 1)
    devices = math.prod(mesh.shape[n] for n in names)
    found.append(names if size % devices == 0 else ())
  return tuple(found)


def split_axes(letter: str) -> tuple[str, ...]:
  """Return the mesh axes of more than one device that split this axis under the rules in force."""
  names = dict(nn.get_logical_axis_rules()).get(letter) or ()
  mesh = jax.sharding.get_abstract_mesh()
  return tuple(name for name in names if mesh.shape[name] > 1)


def letters_of(tree: Any, prefix: str = '') -> Any:
  """Return the tree of axis letters (`'DNH'`) of a tree of boxed parameters.

  Args:
    tree: Boxed parameters.
    prefix: Letters to put before the letters of each parameter.
  """
  is_box = lambda x: isinstance(x, nn.Partitioned)
  return jax.tree.map(lambda x: prefix + ''.join(x.names), tree, is_leaf=is_box)


def n_inputs(letters: str) -> int:
  """Return the number of leading kernel axes that are inputs.

  These are the axes before an output axis D, or one axis otherwise.

  Example:
    >>> [n_inputs(letters) for letters in ('DNH', 'NHD', 'DF', 'DD')]
    [1, 2, 1, 1]
  """
  return max(letters.find('D', 1), 1)


def trailing(x: jax.Array, ndim: int) -> jax.Array:
  """Return x with leading axes of size 1, so that it broadcasts to arrays of rank `ndim`."""
  return x.reshape((1,) * (ndim - x.ndim) + x.shape)


def device_count(names: Sequence[str]) -> int:
  """Return the number of devices along mesh axes, in the mesh in force."""
  sizes = jax.sharding.get_abstract_mesh().shape
  return math.prod(sizes[name] for name in names)
