"""The axis letters of an optimizer's state, from those of the parameters it is kept for."""

from typing import Any

import jax
import optax

from tfm.optim.base import Letters
from tfm.optim.layout import layout


def state_letters(tx: optax.GradientTransformation, params: Any, letters: Letters) -> Any:
  """The tree of axis letters of `tx.init(params)`: '' for what every device keeps whole (counts,
  constants).

  `params` may be shapes. A leaf of the state belongs to the parameter whose path its own path ends
  in, and has that parameter's letters; factors of a second moment (`.rows`, `.cols`) lack those of
  the axes averaged away."""
  owners = {
    keys: (letter, p.shape)
    for (keys, p), letter in zip(
      jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(letters), strict=True
    )
  }

  def of_leaf(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> str:
    field = getattr(path[-1], 'name', '') if path else ''
    if field in ('rows', 'cols'):
      path = path[:-1]
    owner = next((owners[path[i:]] for i in range(len(path)) if path[i:] in owners), None)
    if owner is None:
      return ''
    letter, shape = owner
    if field in ('rows', 'cols'):
      stack, groups = layout(letter)
      letter = stack + (groups[0] if field == 'rows' else ''.join(groups[1:]))
      assert len(letter) == len(leaf.shape), (
        f'{letter!r} names not the axes of {leaf.shape} at {path}'
      )
      return letter
    assert leaf.shape == shape, (
      f'a state of shape {leaf.shape} is kept for a parameter of shape {shape} at {path}'
    )
    return letter

  return jax.tree_util.tree_map_with_path(of_leaf, jax.eval_shape(tx.init, params))
