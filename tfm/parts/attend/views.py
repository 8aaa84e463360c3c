"""Attention by the views of a mask: each in the order that brings its pairs together, joined by
their weights.
"""

from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tfm.parts.attend.base import Scores
from tfm.parts.mask.base import Mask, View
from tfm.parts.tokeninfo import TokenInfo


def worth(mask: Mask, tiles: float) -> tuple[View, ...]:
  """The views of the mask if a row has tiles enough to gain by them, else the mask as one, as
  tokens stand.

  As they stand about half of the tiles of a row are seen; in a view a tile of queries sees its own
  and one or two beside it, and moving and joining cost as much again."""
  views = mask.views()
  return views if tiles > 4 * len(views) else (View(mask),)


def joined(
  kernel: Callable[..., tuple[jax.Array, jax.Array]],
  views: tuple[View, ...],
  q_BTNH: jax.Array,
  k_BSKH: jax.Array,
  v_BSKH: jax.Array,
  q: TokenInfo,
  k: TokenInfo,
  scores: Scores,
  reduce: str,
) -> jax.Array:
  """y_BTNH of a mask that is the union of `views`: each one's y by its share of the sum of
  exponentials.

  `kernel(q_BTNH, k_BSKH, v_BSKH, q, k, scores, reduce)` gives the y_BTNH of a view and the
  logarithms of its sums, lse_BTN, with the gradients of both."""
  ys, logs = [], []
  for i, view in enumerate(views):
    asking, seen = order(view.queries, q), order(view.keys, k)
    own = dataclasses.replace(
      scores, mask=view.mask, sink_N=None if i else scores.sink_N, ordered=False
    )
    if scores.drop is not None:
      query_BT, key_BS = (o and o.source_BT for o in (asking, seen))
      own = dataclasses.replace(
        own, drop=dataclasses.replace(scores.drop, query_BT=query_BT, key_BS=key_BS)
      )
    (q_v, q_info), (k_v, v_v, k_info) = moved((q_BTNH, q), asking), moved((k_BSKH, v_BSKH, k), seen)
    y, lse = moved(kernel(q_v, k_v, v_v, q_info, k_info, own, reduce), asking and asking.back)
    ys.append(y)
    logs.append(lse)
  if len(views) == 1:
    return ys[0]
  total_BTN = jax.nn.logsumexp(jnp.stack(logs), 0)
  shares = [jnp.exp(lse - total_BTN)[..., None] for lse in logs]
  return sum(share * y.astype(share.dtype) for share, y in zip(shares, ys, strict=True)).astype(
    v_BSKH.dtype
  )


class Order(NamedTuple):
  """Where each token comes from, and where it goes to."""

  source_BT: jax.Array
  target_BT: jax.Array

  @property
  def back(self) -> 'Order':
    return Order(self.target_BT, self.source_BT)


def order(by: Callable[[TokenInfo], jax.Array] | None, info: TokenInfo) -> Order | None:
  """Documents one after another, the tokens of each sorted; where `by` is the same, as they stand."""
  if by is None:
    return None
  # Sites are often constants, and XLA would sort them, slowly, while it compiles.
  info = jax.lax.optimization_barrier(info)
  at_BT = jnp.broadcast_to(
    jnp.arange(info.positions.shape[1], dtype=jnp.int32), info.positions.shape
  )
  source_BT = jax.lax.sort((info.segment_ids, by(info), at_BT), dimension=1, num_keys=2)[2]
  return Order(source_BT, jax.lax.sort((source_BT, at_BT), dimension=1)[1])


def moved(tree: Any, order: Order | None) -> Any:
  """Arrays `[B, T, ...]` in that order."""
  return tree if order is None else jax.tree.map(lambda x: _taken(x, order), tree)


@jax.custom_vjp
def _taken(x: jax.Array, order: Order) -> jax.Array:
  """*Why its own VJP*: autodiff does not know that no token is taken twice, and adds up what it
  could fetch.
  """
  return jnp.take_along_axis(
    x, order.source_BT.reshape(*order.source_BT.shape, *[1] * (x.ndim - 2)), 1
  )


_taken.defvjp(
  lambda x, order: (_taken(x, order), order), lambda order, g: (_taken(g, order.back), None)
)
