"""A mapping that can be a field of a frozen, hashable dataclass."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

V = TypeVar('V')


class FrozenMap(Mapping[str, V]):
  """An immutable, hashable mapping from names to values, in insertion order.

  Two maps are equal if they hold the same items, in any order.

  Example:
    >>> FrozenMap({'a': 1, 'b': None}) == {'a': 1}
    True
  """

  def __init__(self, items: Mapping[str, Any] = {}):
    # None means absent, so that a flag can remove an entry.
    self._items: dict[str, V] = {name: value for name, value in items.items() if value is not None}

  def __getitem__(self, name: str) -> V:
    return self._items[name]

  def __iter__(self) -> Iterator[str]:
    return iter(self._items)

  def __len__(self) -> int:
    return len(self._items)

  def __eq__(self, other: object) -> bool:
    return self._items == dict(other) if isinstance(other, Mapping) else NotImplemented

  def __hash__(self) -> int:
    return hash(frozenset(self._items.items()))

  def __repr__(self) -> str:
    return f'FrozenMap({self._items!r})'
