"""One alphabet: the letter in a name's suffix, in an einsum and in a sharding rule."""

from collections.abc import Callable
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
  """`init`, whose result carries the letters of its axes: `sharded(init, 'DNH')`.

  `tfm.train.shard` maps letters to mesh axes by one rule table; nothing else in the package names a
  mesh axis."""
  bad = [c for c in letters if c not in AXES]
  assert not bad, f'{letters!r}: {bad} are not letters of the alphabet {sorted(AXES)}'
  return nn.with_logical_partitioning(init, tuple(letters))


def stacked(boxed: Any) -> Any:
  """The boxed parameters of layers that `vmap` has put on a leading axis, which their letters get
  too.
  """
  is_box = lambda x: isinstance(x, nn.Partitioned)
  return jax.tree.map(lambda b: b.replace(names=('L', *b.names)), boxed, is_leaf=is_box)


def constrained(x: jax.Array, letters: str) -> jax.Array:
  """x, laid out on the mesh as the rules in force say for these letters ('-' is whole); x itself if
  none are.
  """
  return nn.with_logical_constraint(x, tuple(None if c == '-' else c for c in letters))


def mesh_axes(letters: str, shape: tuple[int, ...]) -> tuple[tuple[str, ...], ...]:
  """The mesh axes of more than one device that the rules in force split each axis of an array over;
  () for none.
  """
  mesh = jax.sharding.get_abstract_mesh()
  rules: dict[str, Any] = dict(nn.get_logical_axis_rules())
  found: list[tuple[str, ...]] = []
  for letter, size in zip(letters, shape, strict=True):
    used = {name for names in found for name in names}
    names = tuple(n for n in rules.get(letter, ()) if n not in used and mesh.shape[n] > 1)
    found.append(names if size % math.prod(mesh.shape[n] for n in names) == 0 else ())
  return tuple(found)


def letters_of(tree: Any, prefix: str = '') -> Any:
  """The tree of axis letters (`'DNH'`) of a tree of boxed parameters, each with `prefix` put before
  it.
  """
  is_box = lambda x: isinstance(x, nn.Partitioned)
  return jax.tree.map(lambda x: prefix + ''.join(x.names), tree, is_leaf=is_box)


def n_inputs(letters: str) -> int:
  """How many leading axes of a kernel are inputs: those before the model axis where it is an
  output, else one.

  Example:
    >>> [n_inputs(letters) for letters in ('DNH', 'NHD', 'DF', 'DD')]
    [1, 2, 1, 1]
  """
  return max(letters.find('D', 1), 1)


def trailing(x: jax.Array, ndim: int) -> jax.Array:
  """x with axes of size 1 before its own, so that it meets the last axes of a rank `ndim` array."""
  return x.reshape((1,) * (ndim - x.ndim) + x.shape)
