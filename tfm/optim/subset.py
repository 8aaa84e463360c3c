"""Subsets of a tree of parameters, as nested dicts with the same paths."""

from typing import Any


def select(tree: Any, chosen: Any) -> Any:
  """Return the leaves of `tree` where `chosen` is true, without empty dicts."""
  if not isinstance(tree, dict):
    return tree
  return {name: select(tree[name], chosen[name]) for name in tree if _any(chosen[name])}


def _any(chosen: Any) -> bool:
  return any(map(_any, chosen.values())) if isinstance(chosen, dict) else bool(chosen)


def merged(one: Any, other: Any) -> Any:
  """Merge two trees of different leaves."""
  if not (isinstance(one, dict) and isinstance(other, dict)):
    raise AssertionError('a leaf is in both trees')
  both = {name: merged(one[name], other[name]) for name in one.keys() & other.keys()}
  return {**one, **other, **both}
