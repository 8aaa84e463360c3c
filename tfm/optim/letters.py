"""The axis letters of an optimizer state."""

from typing import Any

import jax
import optax

from tfm.optim.base import Letters
from tfm.optim.layout import layout


def state_letters(tx: optax.GradientTransformation, params: Any, letters: Letters) -> Any:
  """Return the axis letters of `tx.init(params)`, as a tree.

  A leaf of the state belongs to the parameter with the longest path that ends its own path, and has
  the letters of that parameter. Factors of a second moment (`.rows`, `.cols`) lack the letters of
  their averaged axes. Scales of moments in 8 bits (`.scales`) have a lower-case last letter, for
  blocks of that axis: they are sharded like it if their number is divisible. Counts and constants
  are replicated, with letters ''.

  Args:
    tx: The optimizer.
    params: The parameters, or their shapes.
    letters: The axis letters of each parameter.

  Returns:
    A tree with the structure of the state.
  """
  owners: dict[tuple[Any, ...], tuple[str, tuple[int, ...]]] = {}
  leaves = jax.tree_util.tree_leaves_with_path(params)
  for (keys, p), letter in zip(leaves, jax.tree.leaves(letters), strict=True):
    owners[keys] = (letter, p.shape)

  def of_leaf(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> str:
    field = getattr(path[-1], 'name', '') if path else ''
    if field in ('rows', 'cols', 'codes', 'scales'):
      path = path[:-1]
    owner = next((owners[path[i:]] for i in range(len(path)) if path[i:] in owners), None)
    if owner is None:
      return ''
    letter, shape = owner
    if field in ('rows', 'cols'):
      stack, groups = layout(letter)
      letter = stack + (groups[0] if field == 'rows' else ''.join(groups[1:]))
      assert len(letter) == len(leaf.shape), (
        f'{path}: letters {letter!r} do not match the shape {leaf.shape}'
      )
      return letter
    if field == 'scales':
      assert leaf.shape[:-1] == shape[:-1], f'{path}: {leaf.shape} are no scales of {shape}'
      return letter[:-1] + letter[-1].lower()
    assert leaf.shape == shape, (
      f'{path}: the state has shape {leaf.shape}, but the parameter has shape {shape}'
    )
    return letter

  return jax.tree_util.tree_map_with_path(of_leaf, jax.eval_shape(tx.init, params))
