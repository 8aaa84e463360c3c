"""The permutation mask of XLNet."""

import dataclasses

from tfm.parts.mask.base import Mask, View, scrambled


@dataclasses.dataclass(frozen=True)
class Permutation(Mask):
  """Attention to earlier tokens of a random order (XLNet, arXiv:1906.08237).

  The mask is rank(key) <= rank(query): n (n + 1) / 2 pairs. The ranks are hashed positions, which
  have no ties at any length.

  Attributes:
    seed: selects the order.
    itself: whether a token attends to itself. If not (XLNet's query stream), there are n (n - 1) /
      2 pairs, and the first token of the order attends to none.

  Note:
    The paper draws an order for each sequence and step. Here `seed` gives one order for all
    documents.
  """

  seed: int = 0
  itself: bool = True

  def __call__(self, q, k):
    query, key = scrambled(q.positions, self.seed), scrambled(k.positions, self.seed)
    return key <= query if self.itself else key < query

  def views(self):
    rank = lambda info: scrambled(info.positions, self.seed)
    return (View(self, rank, rank),)

  def reach(self, i_T, n):
    return None

  def pairs(self, n):
    return n * (n + 1) // 2 if self.itself else n * (n - 1) // 2
