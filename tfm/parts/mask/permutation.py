"""Tokens in a random order, each seeing those before it in that order (XLNet, arXiv:1906.08237)."""

import dataclasses

from tfm.parts.mask.base import Mask, View, scrambled


@dataclasses.dataclass(frozen=True)
class Permutation(Mask):
  """rank(key) <= rank(query), in an order of positions picked by `seed`: n (n + 1) / 2 pairs.

  Without `itself` a token does not see itself (XLNet's query stream): n (n - 1) / 2 pairs, and the
  first of the order sees nobody. The order is that of scrambled positions, which has no ties and is
  there at any length.

  *Differs*: the paper draws an order for each sequence and step; here every document has that of
  `seed`."""

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
