"""Some leaves of a tree of parameters, as a smaller tree of the same paths."""

from typing import Any


def picked(tree: Any, chosen: Any) -> Any:
  """The nested dicts of `tree` with the leaves for which the tree `chosen` says so; no dict is left
  empty.
  """
  if not isinstance(tree, dict):
    return tree
  return {name: picked(tree[name], chosen[name]) for name in tree if _any(chosen[name])}


def _any(chosen: Any) -> bool:
  return any(map(_any, chosen.values())) if isinstance(chosen, dict) else bool(chosen)


def merged(one: Any, other: Any) -> Any:
  """Two trees of different leaves as one."""
  if not (isinstance(one, dict) and isinstance(other, dict)):
    raise AssertionError('a leaf is in both trees')
  both = {name: merged(one[name], other[name]) for name in one.keys() & other.keys()}
  return {**one, **other, **both}
